"""Which images a Dockerfile needs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.images.dockerfile import bases, expand, keyed


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


MARK = "ARG corral_args_"


def marked(text: str, **arguments: str) -> list[int]:
    """Return the lines the cache's key is put on, from 1."""
    made = keyed(text, arguments).splitlines()
    assert [line for line in made if not line.startswith(MARK)] == text.splitlines()
    return [number for number, line in enumerate(made, 1) if line.startswith(MARK)]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("FROM a\nRUN x\nARG TAG\nENV T=$TAG\n", [4]),
        ("FROM a\nARG TAG=1\nLABEL t=${TAG:-x} u=2\nENV T=$TAG", [3]),
        ("FROM a\nARG TAG\nRUN make $TAG\nWORKDIR /app/$TAG\n", [4]),
        ("FROM a\nARG D\nCOPY f \\\n  # where\n  $D\n", [3]),
        ("FROM a\nARG A\nARG B=$A\nENV C=${X:-$B}\n", [4]),
        ("# escape=`\nFROM a\nARG A\nENV C=1 `\n  D=$A\n", [4]),
        ("FROM a AS one\nARG A\nENV B=$A\nFROM b\nARG A\nUSER $A\n", [3, 7]),
        ("FROM a\nARG TAG\nRUN echo $TAG\n", []),  # buildah's own key
        ("ARG TAG\nFROM a:$TAG\nENV T=$TAG\n", []),  # not declared in the stage: empty
        ("FROM a\nENV A=1\nLABEL b=$A\n", []),
        ("FROM a\nRUN <<END\nARG A\nENV B=$A\nEND\n", []),
        ("", []),
    ],
)
def test_the_cache_is_keyed_before_the_first_use_outside_of_run(
    text: str, lines: list[int]
) -> None:
    assert marked(text, TAG="1", A="2") == lines


@pytest.mark.parametrize(
    ("text", "arguments", "same"),
    [
        ("FROM a\nARG TAG\nENV T=$TAG\n", {"TAG": "1"}, True),
        ("FROM a\nARG TAG\nENV T=$TAG\n", {"TAG": "1", "OTHER": "x"}, True),  # declared nowhere
        ("FROM a\nARG TAG\nENV T=$TAG\n", {"TAG": "2"}, False),
        ("FROM a\nARG TAG\nENV T=$TAG\n", {}, False),
        ("FROM a\nARG TAG\nENV T=$TAG\n", {"TAG": ""}, False),
        ("FROM a\nARG TAG=7\nENV T=$TAG\n", {"TAG": "1"}, False),  # another default
    ],
)
def test_the_key_is_that_of_the_values(text: str, arguments: dict[str, str], *, same: bool) -> None:
    before = keyed("FROM a\nARG TAG\nENV T=$TAG\n", {"TAG": "1"})
    key = re.compile(rf"{MARK}\w+")
    assert (key.findall(before) == key.findall(keyed(text, arguments))) is same
