"""Who asked: one value, whoever sends what; nothing hostile of it is kept or shown."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from specs.made_by import LONGEST_MESSAGE, MadeBy

LONGEST = {"user": 128, "login": 128, "host": 128, "directory": 4096, "branch": 256, "commit": 64}
HOSTILE = {
    "a line more": ("anna\nroot", "anna root"),
    "back to its begin": ("anna\rroot", "anna root"),
    "a tab": ("anna\troot", "anna root"),
    "a colour": ("\x1b[31mred", "\N{REPLACEMENT CHARACTER}[31mred"),
    "a title": ("\x9d0;x\x07", "\N{REPLACEMENT CHARACTER}0;x\N{REPLACEMENT CHARACTER}"),
    "nothing": ("a\0b", "a\N{REPLACEMENT CHARACTER}b"),
    "the other way round": ("a\u202eb", "a\N{REPLACEMENT CHARACTER}b"),
    "a line of Unicode": ("a\u2028b", "a b"),
    "a space that does not break": ("a\u00a0b", "a b"),
    "letters of any script": ("Jürgen 王", "Jürgen 王"),
}


@pytest.mark.parametrize("field", [*LONGEST, "message"])
@pytest.mark.parametrize(("said", "kept"), HOSTILE.values(), ids=HOSTILE)
def test_nothing_hostile_is_kept(field, said, kept):
    made = MadeBy(**{field: said})
    assert getattr(made, field) == kept
    sent = MadeBy.model_validate({field: said})
    assert MadeBy.model_validate_json(sent.encode()) == made
    if field in ("host", "directory"):
        assert getattr(MadeBy().at(**{"host": "", field: said}), field) == kept


@pytest.mark.parametrize(("field", "longest"), LONGEST.items())
def test_what_is_long_is_cut(field, longest):
    assert len(getattr(MadeBy(**{field: "x" * 10_000}), field)) == longest


def test_a_message_is_whole_or_refused():
    assert len(MadeBy(message="x" * LONGEST_MESSAGE).message) == LONGEST_MESSAGE
    with pytest.raises(ValidationError):
        MadeBy(message="x" * 10_000)


@pytest.mark.parametrize(("said", "kept"), HOSTILE.values(), ids=HOSTILE)
def test_a_header_is_no_way_around_it(said, kept):
    made = MadeBy.asker(f"{quote(said)}@{quote(said)}", "root", 0)
    assert (made.login, made.host) == (kept, kept)
    assert made.who == f"root ({kept})@{kept}"


@given(header=st.text(max_size=300) | st.text("%@0aAbf1", max_size=10_000))
def test_any_header_is_one_short_line(header):
    made = MadeBy.asker(header, "", None)
    assert made.who.isprintable()
    assert len(made.who) <= 2 * 128 + 1
    assert (made.uid, made.user) == (None, "")


@pytest.mark.parametrize(
    ("header", "user", "uid", "who"),
    [
        ("anna@laptop", "anna", 1007, "anna@laptop"),
        ("anna@laptop", "root", 0, "root (anna)@laptop"),
        ("anna@laptop", "", 1007, "uid 1007 (anna)@laptop"),
        ("anna@laptop", "", None, "anna@laptop"),
        ("a%40b@laptop", "root", 0, "root (a@b)@laptop"),
        ("@laptop", "root", 0, "root@laptop"),
        ("anna@", "root", 0, "root (anna)"),
        ("", "root", 0, "root"),
        ("laptop", "root", 0, "root"),
        ("\udcff@h", "root", 0, "root (\N{REPLACEMENT CHARACTER})@h"),
        ("", "", None, ""),
    ],
)
def test_who_it_was(header, user, uid, who):
    assert MadeBy.asker(header, user, uid).who == who


def test_a_body_says_what_it_is_for_and_not_who_it_is():
    said = MadeBy(
        kind="rollback", user="root", uid=0, login="eve", host="ci", to=7, only=("web",),
        message="prices", branch="main", commit="c0ffee", dirty=True, directory="/shop",
    )  # fmt: skip
    told = MadeBy.asker("anna@laptop", "shop", 1007)
    assert said.asked_by("up", told) == said.model_copy(
        update={
            "kind": "up", "user": "shop", "uid": 1007, "login": "anna", "host": "laptop",
            "to": 0, "only": (),
        }
    )  # fmt: skip
    without = said.asked_by("up", MadeBy.asker("", "shop", 1007))
    assert (without.login, without.host) == ("eve", "ci")
