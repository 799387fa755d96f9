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


def test_nothing_else_in_the_page_names_a_test_that_is_not_there() -> None:
    for path, name in SHOWN.findall(PAGE.read_text(encoding="utf-8")):
        assert (ROOT / path).is_file(), path
        assert not name or name in known_tests(path), f"{path}::{name}"
