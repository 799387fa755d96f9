"""Docker's patterns of paths: one table, and which folders need not be looked at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.kit.ignoring import PathPatterns, lines_of


@pytest.mark.parametrize(
    ("patterns", "out", "stays"),
    [
        ("node_modules/", "node_modules node_modules/a/b", "a/node_modules node_modules2"),
        ("*.pyc", "a.pyc", "b/a.pyc a.pyco"),
        ("**/*.pyc", "a.pyc b/a.pyc b/c/a.pyc", "a.py"),
        ("**/tmp", "tmp a/tmp a/tmp/b", "tmpx"),
        ("a/**", "a/b a/b/c", "a b/a/c"),
        ("a/**/z", "a/z a/b/z a/b/c/z", "a/bz"),
        ("?.txt", "a.txt", "ab.txt .txt"),
        ("[a-c].txt", "b.txt", "d.txt"),
        ("[^a-c].txt", "d.txt", "b.txt"),
        (r"\*", "*", "a"),
        ("[.txt", "[.txt", "a.txt"),
        ("/lead", "lead lead/b", "a/lead"),
        ("./dot//x/", "dot/x", "x"),
        (".", "", "a ."),
        ("* !src", "a a/b", "src src/a.py"),
        ("* !src src/*.log", "a src/x.log", "src/a.py"),
        ("!a a", "a", "b"),
        ("*.md !README.md", "a.md", "README.md"),
        ("**", "a a/b .x", ""),
        ("a+b (c)", "a+b (c)/d", "aab c"),
    ],
)
def test_what_a_pattern_means(patterns, out, stays):
    found = PathPatterns(patterns.split())
    assert [path for path in out.split() if not found.matches(path)] == []
    assert [path for path in stays.split() if found.matches(path)] == []


def test_the_lines_of_a_file():
    text = "\ufeff# words\n\n*.log\n  \n !keep.log \n#x\n"
    assert lines_of(text) == ["*.log", " !keep.log "]
    found = PathPatterns(lines_of(text))
    assert (found.matches("a.log"), found.matches("keep.log")) == (True, False)


PARTS = st.lists(st.sampled_from(["a", "b", "ab", "*", "**", "?"]), min_size=1, max_size=3)
LINES = st.lists(st.tuples(st.booleans(), PARTS), max_size=4)
PATHS = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=3)


@given(LINES, PATHS, PATHS)
def test_below_a_closed_folder_nothing_is_anybodys(lines, folder, below):
    patterns = PathPatterns([("!" if back else "") + "/".join(parts) for back, parts in lines])
    if patterns.closes("/".join(folder)):
        assert patterns.matches("/".join([*folder, *below]))
