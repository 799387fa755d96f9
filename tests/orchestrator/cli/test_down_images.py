"""`down --rmi` against a scripted controller: what is asked, in which order, and what is said."""

from __future__ import annotations

import pytest
from fake import Problem

WEB = {"name": "shop-web", "digests": ["sha256:" + "a" * 64]}
DB = {"name": "postgres:16", "digests": []}


def row(node, image="shop-web", reason=""):
    return {"node": node, "image": image, "reason": reason}


@pytest.fixture
def shop(fake):
    fake.on("GET", "/v1/stacks/shop/images", {"images": [WEB]})
    fake.on("DELETE", "/v1/stacks/shop", {"name": "shop"})
    fake.on("POST", "/v1/images/forget", {"rows": [row("alpha")]})
    return fake


def test_images_are_asked_for_before_and_removed_after(shop, corral):
    done = corral("-p", "shop", "down", "--rmi", "local")
    assert done.code == 0, done.err
    order = [(r.method, r.path) for r in shop.requests]
    before, removal, after = (
        order.index(one)
        for one in (
            ("GET", "/v1/stacks/shop/images"),
            ("DELETE", "/v1/stacks/shop"),
            ("POST", "/v1/images/forget"),
        )
    )
    assert before < removal < after
    assert shop.asked("GET", ".*/images")[0].query["built"] == ["1"]
    assert shop.asked("POST", ".*")[0].body == {"images": [WEB]}
    assert done.err.endswith("image shop-web removed on alpha\n")


def test_all_are_all(shop, corral):
    assert corral("-p", "shop", "down", "--rmi", "all").code == 0
    assert shop.asked("GET", ".*/images")[0].query.get("built", ["0"]) == ["0"]


def test_without_it_no_image_is_asked_for(shop, corral):
    assert corral("-p", "shop", "down").code == 0
    assert not shop.asked("GET", ".*/images")
    assert not shop.asked("POST", ".*")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row("a"), row("b")], ["image shop-web removed on a, b"]),
        ([row("a", reason="stack x uses it")], ["image shop-web stays on a: stack x uses it"]),
        ([row("a"), row("b", reason="x uses it")],
         ["image shop-web removed on a", "image shop-web stays on b: x uses it"]),
        ([row("a"), row("b", image="", reason="it is away")],
         ["image shop-web removed on a", "images stay on b: it is away"]),
        ([], ["image shop-web: no node that answers has it"]),
        ([row("b", image="", reason="it is away")],
         ["images stay on b: it is away", "image shop-web: no node that answers has it"]),
    ],
)  # fmt: skip
def test_what_became_of_them_is_said_and_is_no_failure(shop, corral, rows, said):
    shop.on("POST", "/v1/images/forget", {"rows": rows})
    done = corral("-p", "shop", "down", "--rmi", "all")
    assert done.code == 0
    assert done.err.splitlines()[-len(said) :] == said


def test_no_such_stack_has_none(fake, corral):
    done = corral("-p", "shop", "down", "--rmi", "all")
    assert (done.code, "nothing to remove" in done.err) == (0, True)
    assert not fake.asked("POST", ".*")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--rmi", "local", "web"), 1, "whole stack"),
        (("--rmi", "some"), 2, "local"),
        (("--rmi",), 2, "--rmi"),
    ],
)
def test_what_is_not_meant(shop, corral, words, code, says):
    done = corral("-p", "shop", "down", *words)
    assert (done.code, says in done.err) == (code, True), done.err
    assert not shop.asked("DELETE", ".*")


def test_a_controller_that_refuses_is_a_failure(shop, corral):
    def refuse(_):
        body = {"type": "conflict", "title": "Conflict", "detail": "another controller took over"}
        raise Problem(409, {**body, "status": 409})

    shop.on("POST", "/v1/images/forget", refuse)
    done = corral("-p", "shop", "down", "--rmi", "all")
    assert (done.code, "took over" in done.err) == (1, True)
