"""What a terminal would obey is printed by its number, and read it is the same value."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from orchestrator.cli.show import formats, functions, table
from specs.compose.project.render import render
from specs.kit import jsontext

ROOT = Path(__file__).parents[2]

# what is there: how it is printed
TABLE = [
    ("\x9b31mred", r"\u009b31mred"),  # CSI in one character
    ("\x80\x9f", r"\u0080\u009f"),
    ("\x7f", r"\u007f"),
    ("\x1b[31m", r"\u001b[31m"),
    ("a\nb\x00", r"a\nb\u0000"),
    ("\u2028\u2029", r"\u2028\u2029"),
    ("\u202eevil", r"\u202eevil"),  # the line is written backwards from here on
    ("\u2066x\u2069\u200f\u061c", r"\u2066x\u2069\u200f\u061c"),
    ("\udc9b", r"\udc9b"),  # a byte that was no UTF-8
    ("Grüße, \u4f60\u597d \U0001f600", "Grüße, \u4f60\u597d \U0001f600"),
    ("\xa0\xad", "\xa0\xad"),
    ('"\\', r"\"\\"),
]
WAYS = {
    "json": jsontext.shown,
    "lines of rows": lambda value: table.json_lines([{"name": value}]),
    "{{json .}}": lambda value: formats.Format("{{json .}}").text([{"name": value}], str),
    "compact": functions.compact,
    "printf %q": lambda value: functions.printf("%q", value),
    "config": lambda value: render({"name": value}, "json"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("value", "printed"), TABLE)
def test_a_value_is_printed_harmlessly_and_read_as_it_is(way, value, printed):
    text = WAYS[way](value)
    assert f'"{printed}"' in text
    found = json.loads(text)
    assert (found["name"] if isinstance(found, dict) else found) == value


def test_every_printed_json_goes_through_it():
    raw = re.compile(r"ensure_ascii|print\(json\.dumps")
    found = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "orchestrator/cli").rglob("*.py"))
        if raw.search(path.read_text())
    ]
    assert found == []
