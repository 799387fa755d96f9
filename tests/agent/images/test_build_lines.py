"""What people see of a line that a build printed."""

import pytest

from agent.images import build


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (b"Unpacking redis", "Unpacking redis"),
        (b"", ""),
        (b"as on Windows\r", "as on Windows"),
        (
            b"(Reading database ... \r(Reading database ... 5%\r(Reading database ... 42 files)",
            "(Reading database ... 42 files)",
        ),
        (b"50%\r100%\r", "100%"),
        (b"50%\r100%\r\r", "100%"),
        (b"no text \xff", "no text \ufffd"),
        (b"x" * 10_000, "x" * 8192),
    ],
)
def test_a_line_is_shown_as_it_looks_in_the_end(printed, shown):
    assert build._text(printed) == shown
