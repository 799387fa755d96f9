"""Which images a Dockerfile needs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.images.dockerfile import bases, expand


@pytest.mark.parametrize(
    ("text", "arguments", "images"),
    [
        ("FROM nginx:1", {}, ["nginx:1"]),
        ("from nginx:1 as web\n", {}, ["nginx:1"]),
        ("# comment\n\nFROM scratch\nCOPY a /a", {}, []),
        ("ARG BASE=python:3.12\nFROM ${BASE}", {}, ["python:3.12"]),
        ("ARG BASE=python:3.12\nFROM $BASE", {"BASE": "mine"}, ["mine"]),
        ("ARG BASE\nFROM ${BASE:-alpine}", {}, ["alpine"]),
        ('ARG V="3"\nARG BASE=python:$V\nFROM ${BASE}', {}, ["python:3"]),
        ("FROM ${NONE}", {}, []),
        ("FROM --platform=$BUILDPLATFORM golang AS b\nFROM alpine\nCOPY --from=b /x /x", {},
         ["alpine", "golang"]),
        ("FROM a AS one\nFROM one AS two\nFROM two", {}, ["a"]),
        ("FROM a AS unused\nFROM b", {}, ["b"]),
        ("FROM a\nFROM b\nCOPY --from=0 /x /x", {}, ["b", "a"]),
        ("FROM a\nCOPY --from=busybox:1 /bin/sh /sh", {}, ["a", "busybox:1"]),
        ("FROM a\nRUN --mount=type=bind,from=tools,target=/t x", {}, ["a", "tools"]),
        ("FROM \\\n  a:1 \\\n  AS x", {}, ["a:1"]),
        ("# escape=`\nFROM `\n a", {}, ["a"]),
        ("FROM a\nRUN <<EOF\nFROM not-an-image\nEOF\nFROM b", {}, ["b"]),
        ("FROM a\nARG BASE=x\nFROM ${BASE:-b}", {}, ["b"]),
        ("FROM a\nARG L=1\nCOPY --from=$L /x /x", {}, ["a"]),
        ("FROM a:${TARGETARCH:+multi}", {}, ["a:multi"]),
        ("", {}, []),
        ("FROM", {}, []),
        ("RUN nothing", {}, []),
    ],
)  # fmt: skip
def test_bases_are_what_the_last_stage_needs(text, arguments, images) -> None:
    assert bases(text, arguments) == images


def test_a_target_needs_only_its_own_stages() -> None:
    text = "FROM a AS one\nFROM b AS two\nCOPY --from=one / /\nFROM c"
    assert bases(text, {}, "one") == ["a"]
    assert bases(text, {}, "TWO") == ["b", "a"]
    assert bases(text, {}, "0") == ["a"]
    assert bases(text, {}) == ["c"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A", "1"), ("${A}b", "1b"), ("${B:-x}", "x"), ("${B-x}", "x"), ("${A:-x}", "1"),
        ("${A:+x}", "x"), ("${B:+x}", ""), (r"\$A", "$A"), ("$", "$"), ("${B:-$A}", "1"),
    ],
)  # fmt: skip
def test_variables(text, value) -> None:
    assert expand(text, {"A": "1"}) == value


@given(st.text(alphabet="FROMARGCPY $\\{}:-=\n#<Eab0/", max_size=200))
def test_any_text_has_an_answer(text) -> None:
    assert isinstance(bases(text, {"A": "b"}), list)
