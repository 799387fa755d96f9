"""Whether an archive is whole, by its two ends; however it is cut into pieces."""

from __future__ import annotations

import io
import tarfile

import pytest

from specs.kit.tarends import TarEnds


def archive(*names):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    return out.getvalue()


CASES = {
    "whole": (archive("a", "b"), ""),
    "of one folder": (archive("."), ""),
    "cut between two files": (archive("a", "b")[:512], "its end is missing"),
    "cut in its end": (archive("a")[:1536].removesuffix(bytes(512)), "its end is missing"),
    "something behind it": (archive("a") + b"x", "its end is missing"),
    "nothing": (b"", "it is empty"),
    "zeros": (bytes(10240), "it begins with nothing but zeros"),
    "no archive": (b"x" * 600, "its end is missing"),
}


@pytest.mark.parametrize("size", [1, 7, 512, 1 << 20])
@pytest.mark.parametrize("case", CASES)
def test_what_the_ends_tell(case, size):
    data, fault = CASES[case]
    ends = TarEnds()
    for at in range(0, len(data), size):
        ends.see(data[at : at + size])
    assert ends.fault() == fault


def test_zeros_are_told_by_the_first_block():
    ends = TarEnds()
    ends.see(bytes(511))
    assert ends.beginning() == ""
    ends.see(bytes(1))
    assert ends.beginning() == "it begins with nothing but zeros"
