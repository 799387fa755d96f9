"""What a person may call a container by: one table for every verb that takes SERVICE."""

from __future__ import annotations

import pytest

from specs.kit import called


def row(name, service="web", slot=1, **more):
    return {
        "id": f"t1m8kq3x9{slot}{service}",
        "name": name,
        "service": service,
        "slot": slot,
        **more,
    }


ROWS = [
    row("shop-web-1"),
    row("shop-web-2", slot=2),
    row("shop-my-web-1", "my-web"),
    row("database", "db"),
    row("shop-web-run-0a1b", slot=0, oneoff=True),
    row("task", "web", slot=0, oneoff=True, id="o9"),
]
CALLED = {
    "web": (["web"], []),
    "db": (["db"], []),
    "idle": (["idle"], []),  # of the file, without containers
    "shop-web-2": ([], ["shop-web-2"]),  # as ps shows it
    "web-2": ([], ["shop-web-2"]),  # as logs does
    "my-web-1": ([], ["shop-my-web-1"]),
    "database": ([], ["database"]),  # container_name
    "db-1": ([], ["database"]),
    "shop-web-run-0a1b": ([], ["shop-web-run-0a1b"]),
    "web-run-0a1b": ([], ["shop-web-run-0a1b"]),
    "task": ([], ["task"]),
    "t1m8kq3x92web": ([], ["shop-web-2"]),  # ps -q
    "t1m8kq3x92": ([], ["shop-web-2"]),  # the beginning of it
    "shop_web_2": ([], ["shop-web-2"]),  # old Compose
    "o9": ([], ["task"]),
    "t1m": ([], []),  # too short for an id
    "web-3": ([], []),
    "b-1": ([], []),
    "shop": ([], []),
    "": ([], []),
}


@pytest.mark.parametrize("word", CALLED)
def test_what_a_word_means(word):
    services, names = CALLED[word]
    found = called.split([word], ROWS, {"idle"})
    assert (found[0], [r["name"] for r in found[1]]) == (services, names)
    assert found[2] == ([] if services or names else [word])


def test_a_service_wins_over_a_container_of_its_name():
    rows = [row("db", "web"), row("shop-db-1", "db")]
    assert called.split(["db"], rows) == (["db"], [], [])


def test_a_name_means_what_ended_under_it_too():
    rows = [row("shop-web-1", id="old"), row("shop-web-1", id="new")]
    assert len(called.containers("web-1", rows)) == 2


def test_the_beginning_of_several_ids_means_none():
    with pytest.raises(called.Ambiguous, match="2 ids"):
        called.containers("t1m8kq3x91", ROWS[:1] + ROWS[3:4])


@pytest.mark.parametrize(
    ("word", "services", "oneoffs"),
    [
        ("web", ["web"], []),
        ("database", ["db"], []),  # all there is of it
        ("my-web-1", ["my-web"], []),
        ("task", [], ["task"]),
    ],
)
def test_the_only_container_of_a_service_stands_for_it(word, services, oneoffs):
    assert called.whole([word, word], ROWS) == (services, oneoffs, [])


def test_one_of_several_is_no_whole_service():
    with pytest.raises(called.PartOf, match="web-2 is one of 2 containers of web"):
        called.whole(["web-2"], ROWS)
    ended = [ROWS[0], {**ROWS[1], "ended": True}]
    assert called.whole(["web-1"], ended)[0] == ["web"], "what ended is no other container"
    assert called.whole(["nope"], ROWS) == ([], [], ["nope"])
