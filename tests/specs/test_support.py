"""The table of what corral does with each key is complete, and its page in docs is fresh."""

import sys
from pathlib import Path

import pytest

from specs.compile.support import SUPPORT, KeyVerdict

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import support_table  # noqa: E402 - a script, found after its folder is named


def test_no_key_of_the_schema_is_missing():
    assert support_table.unlisted() == []


def test_no_key_is_listed_that_the_schema_does_not_have():
    from specs.compose.language.schema import PROJECT

    known = set(support_table.keys(PROJECT))
    assert sorted(set(SUPPORT) - known) == []


def test_the_page_is_fresh():
    assert support_table.PAGE.read_text() == support_table.page(), "run scripts/support_table.py"


def test_every_row_says_where_or_why_not():
    empty = [line for line in support_table.page().splitlines() if line.endswith("| honoured |  |")]
    assert empty == []


@pytest.mark.parametrize("path", sorted(SUPPORT))
def test_what_is_refused_says_what_to_do(path):
    support = SUPPORT[path]
    assert support.note or support.verdict is not KeyVerdict.REFUSED
