"""What reaches a person in words: spans of time, and the kernel's error numbers."""

from __future__ import annotations

import errno
import os

import pytest

from specs.kit.amounts import as_set
from specs.kit.errnos import in_words


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 s"),
        (-1, "0 s"),
        (1e-9, "less than 1 ms"),
        (0.00099, "less than 1 ms"),
        (0.001, "1 ms"),
        (0.0205, "20.5 ms"),
        (0.1, "0.1 s"),
        (0.3, "0.3 s"),
        (5.0, "5 s"),
        (90.25, "90.25 s"),
        (600, "600 s"),
        (1000000.0, "1000000 s"),
        (1e12, "1000000000000 s"),
    ],
)
def test_a_span_has_no_powers_of_ten(amount, text):
    assert as_set(amount) == text


@pytest.mark.parametrize("code", sorted(errno.errorcode))
def test_every_error_of_the_kernel_has_words(code):
    said = in_words(OSError(code, os.strerror(code), "/path"))
    assert said
    assert "/path" not in said, "the caller names it"
    assert "Errno" not in said
    assert not said[0].isupper()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ELOOP, "leads round in a circle"),
        (errno.ENOTDIR, "a file, not a folder"),
        (errno.ENOSPC, "no space is left"),
        (errno.EROFS, "read-only"),
        (errno.E2BIG, "longer than the kernel takes"),
        (errno.ENOEXEC, "another architecture"),
        (errno.ESTALE, "mount it again"),
    ],
)
def test_what_users_meet_says_what_is_the_matter(code, words):
    assert words in in_words(OSError(code, os.strerror(code)))


def test_an_error_without_a_number_says_what_it_has():
    assert in_words(OSError(errno.EINVAL, "is a named pipe")) == "is a named pipe"
    assert in_words(OSError("no such thing")) == "no such thing"
    assert in_words(OSError()) == "OSError"
