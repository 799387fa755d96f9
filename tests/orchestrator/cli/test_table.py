"""Tables in the columns a terminal has: cut, never wrapped, names whole where they can be."""

from __future__ import annotations

import pytest

from orchestrator.cli.show import table

HEADERS = ("NAME", "IMAGE", "STATUS")
ROWS = [
    (
        "shop-web-1",
        "registry.example/team/web:2026.11",
        "pending: no node has 8 GiB of memory free",
    ),
    ("shop-db-1", "postgres:17", "running 2 min (healthy)"),
]


@pytest.mark.parametrize("limit", [0, 200, 120, 80, 60, 40, 30, 10])
def test_no_line_is_wider_than_the_terminal(limit):
    lines = table.render(HEADERS, ROWS, limit).splitlines()
    assert len(lines) == 3
    if limit in (0, 200, 120):
        assert lines[1].endswith("memory free")
        assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(lines)
    else:
        assert max(map(table.width, lines)) <= limit
        assert "\N{HORIZONTAL ELLIPSIS}" in lines[1]
    if limit >= 40:
        assert [line.split()[0] for line in lines] == ["NAME", "shop-web-1", "shop-db-1"]
        assert len({line.find("STATUS") for line in lines[:1]}) == 1


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("short", 5, "short"),
        ("pending: no node has room", 18, "pending: no node\N{HORIZONTAL ELLIPSIS}"),
        ("pending: no node has room", 17, "pending: no node\N{HORIZONTAL ELLIPSIS}"),
        ("pending: no node has room", 19, "pending: no node\N{HORIZONTAL ELLIPSIS}"),
        ("pending: no node has room", 20, "pending: no node\N{HORIZONTAL ELLIPSIS}"),
        ("pending: no node has room", 21, "pending: no node has\N{HORIZONTAL ELLIPSIS}"),
        ("registry.example/team/web", 12, "registry.ex\N{HORIZONTAL ELLIPSIS}"),
        ("a registry.example/team/web", 12, "a registry.\N{HORIZONTAL ELLIPSIS}"),
        (
            "\N{CJK UNIFIED IDEOGRAPH-65E5}" * 5,
            6,
            "\N{CJK UNIFIED IDEOGRAPH-65E5}" * 2 + "\N{HORIZONTAL ELLIPSIS}",
        ),
        ("", 3, ""),
    ],
)
def test_a_cell_is_cut_behind_a_word_where_one_ends_late_enough(text, limit, expected):
    assert table.cut(text, limit) == expected


def test_what_is_piped_is_never_cut(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert table.terminal() == 0
    assert table.render(HEADERS, ROWS).count("\N{HORIZONTAL ELLIPSIS}") == 0
