"""`corral state`: what is shown, what is asked, what is posted."""

from __future__ import annotations

import pytest

OLD = {
    "behind": "the controller's state is older than what runs on n1",
    "absent": ["n2"],
    "adopts": ["stack new: taken over, release 1, up"],
    "stops": ["new-api-1 on n1"],
}


def test_a_state_that_is_new_enough_asks_nothing(fake, corral):
    fake.on("GET", "/v1/state", {"behind": ""})
    assert corral("state").out == "the state is as new as what runs\n"
    assert corral("state", "adopt").code == 0
    assert all(request.method == "GET" for request in fake.requests)


@pytest.mark.parametrize(
    ("line", "path", "kind"),
    [
        (("ls",), "/v1/stacks", "stacks"),
        (("ls", "-q"), "/v1/stacks", "stacks"),
        (("node", "ls"), "/v1/nodes", "nodes"),
        (("-p", "shop", "ps"), "/v1/stacks/shop/tasks", "tasks"),
        (("-p", "shop", "ps", "-a", "--format", "json"), "/v1/stacks/shop/tasks", "tasks"),
    ],
)
@pytest.mark.parametrize("why", ["", "older than what runs on n1: corral state shows it"])
def test_a_list_says_in_one_line_that_a_decision_is_due(fake, corral, line, path, kind, why):
    fake.on("GET", path, {kind: [], "undecided": why})
    fake.on("GET", "/v1/stacks/shop", {"name": "shop", "status": "running"})
    done = corral(*line)
    assert done.code == 0
    said = [text for text in done.err.splitlines() if "warning" in text]
    assert said == ([f"corral: warning: {why}"] if why else [])


def test_a_replica_that_is_missing_is_told_of_beside_the_rows(fake, corral):
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": [], "missing": ["shop-web-3 is missing: x"]})
    fake.on("GET", "/v1/stacks/shop", {"name": "shop", "status": "degraded"})
    done = corral("-p", "shop", "ps", "-q")
    assert (done.out.strip(), done.err) == ("", "corral: shop-web-3 is missing: x\n")


def test_a_lost_stack_is_said_to_wait_for_a_decision(fake, corral):
    fake.on("GET", "/v1/stacks", {"stacks": [], "undecided": "corral state adopt takes over"})
    done = corral("-p", "gone", "ps")
    assert "corral: warning: corral state adopt takes over" in done.err


def test_what_both_answers_would_do_is_shown(fake, corral):
    fake.on("GET", "/v1/state", OLD)
    done = corral("state", "show")
    assert done.code == 1
    assert done.out == (
        "the controller's state is older than what runs on n1\n"
        "not reached: n2\n"
        "corral state adopt:\n"
        "  stack new: taken over, release 1, up\n"
        "corral state discard stops:\n"
        "  new-api-1 on n1\n"
    )


@pytest.mark.parametrize(
    ("words", "code", "posted"),
    [
        (("adopt",), 0, ("/v1/state/adopt", {})),
        (("adopt", "--yes"), 0, ("/v1/state/adopt", {"without_absent": ["1"]})),
        (("discard", "--yes"), 0, ("/v1/state/discard", {})),
        (("discard",), 1, None),  # nobody is there to be asked
    ],
)
def test_an_answer_is_posted_once_it_is_sure(fake, corral, words, code, posted):
    fake.on("GET", "/v1/state", OLD)
    fake.on("POST", "/v1/state/(adopt|discard)", {"done": ["so it is"]})
    done = corral("state", *words)
    assert done.code == code
    posts = [(r.path, r.query) for r in fake.requests if r.method == "POST"]
    if posted is None:
        assert posts == []
        assert "new-api-1 on n1" in done.out
        assert "nothing was changed" in done.err
    else:
        ((path, query),) = posts
        assert path == posted[0]
        assert query.get("without_absent") == posted[1].get("without_absent")
        assert "so it is" in done.out
