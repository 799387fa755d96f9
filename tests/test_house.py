"""The house rules that no linter checks: names, circles, reasons, sizes, paths in the prose."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PACKAGES = ("specs", "scheduler", "agent", "orchestrator")
LONGEST = 500  # lines; a longer module says in its docstring why it stays whole

NOQA = re.compile(r"#\s*noqa\b(?P<codes>:\s*[A-Z]+[0-9]+(?:\s*,\s*[A-Z]+[0-9]+)*)?(?P<rest>.*)")


@cache
def modules() -> dict[str, Path]:
    """Return the modules of our packages by dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            found[".".join(parts)] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what a module consists of at any depth but expressions, which hold none of it."""
    for part in ("body", "handlers", "orelse", "finalbody", "cases"):
        yield from getattr(tree, part, ())


def everything(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the tree and every statement in it."""
    yield tree
    for node in statements(tree):
        yield from everything(node)


def imported(tree: ast.AST) -> set[str]:
    """Return the dotted names that are imported, for types alone too: those tie rooms as well."""
    names: set[str] = set()
    for node in statements(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            known = modules()
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                names.add(below if below in known else node.module)
        else:
            names |= imported(node)
    return names


def test_no_public_class_name_is_defined_twice() -> None:
    places = defaultdict(list)
    for name, path in modules().items():
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)

    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = modules()
    graph = {
        name: {other for other in imported(tree_of(path)) if other in known and other != name}
        for name, path in known.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_every_noqa_says_why() -> None:
    bare = []
    for name, path in modules().items():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = NOQA.search(line)
            if found and (not found["codes"] or not re.search(r"\w{2}", found["rest"])):
                bare.append(f"{name}:{number}")

    assert bare == []


def test_long_modules_say_why_they_stay_whole() -> None:
    silent = []
    for name, path in modules().items():
        length = len(path.read_text(encoding="utf-8").splitlines())
        story = ast.get_docstring(tree_of(path)) or ""
        if length > LONGEST and not re.search(r"\b(whole|one piece|\d+ lines)\b", story):
            silent.append(f"{name}: {length} lines")

    assert silent == []


FOLDERS = (*PACKAGES, "tests", "scripts", "docs", "examples")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *(page for package in PACKAGES for page in sorted((ROOT / package).rglob("README.md"))),
]
NAMED = re.compile(
    r"(?<![\w./{}$*-])((?:[a-z_0-9]+/)*[a-z_0-9]+\.py|(?:[a-z_0-9]+/){2,})(?![\w{}*])"
)


@cache
def endings() -> frozenset[str]:
    """Return every way to name a file or folder of ours: its path from any folder above it."""
    found = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            parts = path.relative_to(ROOT).parts
            closing = "/" if path.is_dir() else ""
            found.update("/".join(parts[start:]) + closing for start in range(len(parts)))
    return frozenset(found)


def stale(text: str) -> list[str]:
    ours = {name for name in NAMED.findall(text) if name.endswith(".py") or is_ours(name)}
    return sorted(ours - endings())


def is_ours(name: str) -> bool:
    """Tell our folders from those of a machine: ``agent/dns/`` from ``var/lib/corral/``."""
    return name.split("/", maxsplit=1)[0] in FOLDERS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_a_page_names_exists(page: Path) -> None:
    assert stale(page.read_text(encoding="utf-8")) == []


def test_every_path_a_docstring_or_comment_names_exists() -> None:
    wrong = {}
    for name, path in modules().items():
        told = [
            ast.get_docstring(node) or ""
            for node in everything(tree_of(path))
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        ]
        told += re.findall(r"#.*", path.read_text(encoding="utf-8"))
        if missing := stale("\n".join(told)):
            wrong[name] = missing

    assert wrong == {}
