"""``docs/differences.md``: every deliberate difference has its reason, and tests that show it.

The tests themselves run with all the others; here the page is held against them, so that a
renamed or removed test takes its row with it.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestrator.cli.elsewhere import FLAGS, OBJECT_FLAGS, WORDS
from orchestrator.cli.registry import COMMANDS, KNOWN_ELSEWHERE
from tests.orchestrator.cli.compose_words import GLOBAL, VERBS
from tests.orchestrator.cli.docker_words import OBJECTS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "differences.md"
HEADER = ("Compose", "corral", "why", "shown by")
SHOWN = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


class Row(NamedTuple):
    """One difference, and the line of the page it is in."""

    line: int
    compose: str
    ours: str
    why: str
    shown: str


def cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|")))


def rows() -> list[Row]:
    found, inside = [], False
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines(), 1):
        if not line.startswith("|"):
            inside = False
        elif cells(line) == HEADER:
            inside = True
        elif inside and not set(line) <= set("|- "):
            found.append(Row(number, *cells(line)))
    return found


@cache
def known_tests(path: str) -> frozenset[str]:
    """Return the names of a file's tests."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = (node.name for node in tree.body if isinstance(node, kinds))
    return frozenset(name for name in names if name.startswith("test_"))


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"line {row.line}")
def test_a_difference_has_a_reason_and_a_test_that_exists(row: Row) -> None:
    assert row.compose
    assert row.ours
    assert row.why
    named = SHOWN.findall(row.shown)
    assert named, "no test shows it"
    for path, name in named:
        assert (ROOT / path).is_file(), f"there is no {path}"
        known = known_tests(path)
        assert known if not name else name in known, f"{path} has no {name}; {sorted(known)}"


def test_the_page_is_more_than_a_heading() -> None:
    assert len(rows()) > 20
    assert len({row.compose for row in rows()}) == len(rows()), "a difference is told twice"


def blocks() -> list[tuple[int, list[str], str]]:
    """Return every table: the line it begins in, its lines, and the paragraph behind it."""
    found: list[tuple[int, list[str], str]] = []
    paragraphs = PAGE.read_text(encoding="utf-8").split("\n\n")
    line = 1
    for index, paragraph in enumerate(paragraphs):
        if paragraph.startswith("|"):
            behind = paragraphs[index + 1] if index + 1 < len(paragraphs) else ""
            found.append((line, paragraph.splitlines(), behind))
        line += paragraph.count("\n") + 2
    return found


@pytest.mark.parametrize(("line", "table", "behind"), blocks(), ids=lambda value: str(value)[:5])
def test_every_table_names_what_shows_it(line: int, table: list[str], behind: str) -> None:
    if cells(table[0]) == HEADER or cells(table[0]) == ("key", "files"):  # a count, not a law
        return
    assert behind.startswith("Shown by"), f"line {line}: no test shows this table"
    assert SHOWN.findall(behind)


def test_the_verbs_are_those_the_command_line_knows() -> None:
    (table,) = [table for _, table, _ in blocks() if cells(table[0]) == ("Compose", "instead")]
    told = {verb.strip("`"): words for verb, words in (cells(line) for line in table[2:])}
    here = {verb: KNOWN_ELSEWHERE[verb] for verb in VERBS if verb not in COMMANDS}
    assert {verb: words.replace("\\|", "|") for verb, words in told.items()} == here


def test_the_flags_are_those_the_command_line_knows() -> None:
    (table,) = [table for _, table, _ in blocks() if cells(table[0]) == ("flag", "instead")]
    told = {flag.strip("`"): words for flag, words in (cells(line) for line in table[2:])}
    theirs = {"": GLOBAL, **{verb: VERBS[verb] for verb in VERBS if verb in COMMANDS}}
    here = {
        f"{verb} {flag}".strip(): words
        for (verb, flag), words in FLAGS.items()
        if flag in theirs.get(verb, "").split()
    }
    assert {flag: words.replace("\\|", "|") for flag, words in told.items()} == here


def test_what_docker_s_objects_lack_is_what_the_command_line_knows() -> None:
    (table,) = [table for _, table, _ in blocks() if cells(table[0]) == ("Docker", "instead")]
    told = {verb.strip("`"): words for verb, words in (cells(line) for line in table[2:])}
    here = {f"{of} {flag}": words for (of, flag), words in OBJECT_FLAGS.items()}
    for group, actions in OBJECTS.items():
        known = {f"{group} {action}" for action in actions} if group in COMMANDS else set()
        here |= {verb: WORDS[verb] for verb in sorted(known) if verb in WORDS}
    assert {verb: words.replace("\\|", "|") for verb, words in told.items()} == here


def test_nothing_else_in_the_page_names_a_test_that_is_not_there() -> None:
    for path, name in SHOWN.findall(PAGE.read_text(encoding="utf-8")):
        assert (ROOT / path).is_file(), path
        assert not name or name in known_tests(path), f"{path}::{name}"
