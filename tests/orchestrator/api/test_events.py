"""Events and `why` over HTTP: what is asked for arrives, what makes no sense is refused."""

from __future__ import annotations

import pytest

from orchestrator.contracts import EventQuery


@pytest.mark.parametrize(
    ("asked", "query"),
    [
        ("?history=1&follow=0", EventQuery(history=True, follow=False)),
        (
            "?stack=shop&follow=0&since=5&until=9.5&tail=3",
            EventQuery("shop", follow=False, since=5.0, until=9.5, tail=3),
        ),
        (
            "?follow=0&filter=kind=run&filter=kind=task&filter=by=a=b",
            EventQuery(follow=False, filters={"kind": ("run", "task"), "by": ("a=b",)}),
        ),
    ],
)
async def test_what_is_asked_for(api, asked, query):
    assert await api.lines(f"/v1/events{asked}") == []
    assert api.control.event_queries == [query]


@pytest.mark.parametrize("asked", ["filter=nope=1", "filter=kind", "tail=x", "since=yesterday"])
async def test_what_makes_no_sense_is_refused(api, asked):
    problem = await api.problem("GET", f"/v1/events?follow=0&{asked}", 422)
    assert problem["detail"]


@pytest.mark.parametrize(("path", "name"), [("web", "web"), ("node/web", "node/web")])
async def test_why_asks_by_name_or_kind(api, path, name):
    status, answer = await api.call("GET", f"/v1/why/{path}?stack=shop")
    assert status == 200
    assert answer["answer"] == f"{name}: 1 of 1 serve"
    assert api.control.calls == [("why", name, "shop")]
