"""What `scale` waits for: what it added, judged as a release's tasks are, and always to an end."""

from __future__ import annotations

import pytest
from fake import Lines

from orchestrator.cli.commands import scale
from orchestrator.cli.show.board import Board, still
from orchestrator.cli.show.rows import lines_of
from orchestrator.cli.show.scaling import LEAVING, STUCK, Scaling
from specs import patience
from specs.patience import SICK

STEP = 0.25


def row(slot, state="running", *, task="", service="web", **more):
    return {
        "id": task or f"t-{service}-{slot}",
        "name": f"shop-{service}-{slot}",
        "service": service,
        "slot": slot,
        "state": state,
        "ready": state == "running",
        "health": "none",
        "status": state,
        "node": "alpha",
        "node_status": "ready",
        "restarts": 0,
        "created_at": 1.0,
        **more,
    }


def crashing(slot, restarts, **more):
    text = f"restarting: exit code 4, {restarts:.0f} restarts"
    return row(slot, ready=False, restarts=restarts, status=text, **more)


OLD = row(1)
LOOPS = crashing(1, 12)


def steadily(*rows):
    """The same at every look."""
    return lambda _now: list(rows)


def new(**more):
    """One new copy beside the one there was."""
    return steadily(OLD, row(2, **more))


def loop(lives=0.3, pause=2.0, *, slot=2):
    """A copy that runs for a while and exits, again and again; the other one runs."""

    def rows(now):
        restarts, into = divmod(now, lives + pause)
        runs = row(slot, restarts=int(restarts))
        return [row(3 - slot, task="other"), runs if into < lives else crashing(slot, restarts + 1)]

    return rows


def replaced(every):
    """A new copy whose task fails and is followed by another one, for ever."""

    def rows(now):
        number, into = divmod(now, every)
        failed = into > every / 2
        state = ("failed", "failed: exit code 4") if failed else ("starting", "starting")
        task = f"t-{int(number)}"
        return [OLD, row(2, state[0], task=task, status=state[1], created_at=2.0 + number)]

    return rows


def loading(now):
    """An image of which something arrives every ten seconds, for ten minutes."""
    if now > 600:
        return [OLD, row(2)]
    done = int(now // 10)
    return [OLD, row(2, "preparing", status=f"preparing: image x: {done} of 60 MB")]


def going(until, state="shutdown"):
    """One of two copies that stops when it likes to."""

    def rows(now):
        if now < until:
            return [OLD, row(2, status="stopping", stopping=True)]
        return [OLD, row(2, state)]

    return rows


def started(again):
    """A copy that had ended and is started again, or not."""

    def rows(now):
        ended = row(1, "failed", status="failed: exit code 3")
        return [ended, row(1, task="t-again", created_at=5.0)] if now >= again else [ended]

    return rows


NOWHERE = {"state": "pending", "status": "pending: no node has 8 GiB free", "node": ""}
SICKLY = {"ready": False, "health": "unhealthy", "status": "running (unhealthy)"}

CASES = {
    # what was there, the count, what is seen -> ok, what is said, seconds
    "a copy that runs": ([OLD], 2, new(), True, "web 2/2", (1, 2)),
    "a copy with a check": ([OLD], 2, new(health="healthy"), True, "web 2/2", (0, 1)),
    "a one-off": ([OLD], 2, new(state="complete"), True, "web 2/2", (0, 1)),
    "as many as there are": ([OLD], 1, steadily(OLD), True, "web 1/1", (0, 1)),
    "none": ([OLD], 0, steadily(row(1, "shutdown")), True, "web 0/0", (0, 1)),
    "fewer": ([OLD, row(2)], 1, going(4), True, "web 1/1", (4, 5)),
    "fewer, one stays": ([OLD, row(2)], 1, going(1e9), True, "web 1/1", (LEAVING, LEAVING + 1)),
    "fewer, its node is down": (
        [OLD, row(2)],
        1,
        steadily(OLD, row(2, stopping=True, node_status="down")),
        True,
        "web 1/1",
        (0, 1),
    ),
    # What did not work before is not awaited, and named.
    "beside a crash loop": ([LOOPS], 2, steadily(LOOPS, row(2)), True, "web 1/2", (1, 2)),
    "beside one that flaps": ([LOOPS], 2, loop(slot=1), True, "web 1/2", (1, 2)),
    "beside one without a place": (
        [row(1, **NOWHERE)],
        2,
        steadily(row(1, **NOWHERE), row(2)),
        True,
        "web 1/2",
        (1, 2),
    ),
    "an ended copy comes again": ([row(1, "failed")], 1, started(2), True, "web 1/1", (2, 4)),
    "an ended copy stays ended": ([row(1, "failed")], 1, started(1e9), True, "web 0/1", (3, 4)),
    # What is added and does not work is the verdict.
    "a crash loop": ([OLD], 2, loop(0.0), False, "never up for 5 s", (15, 40)),
    "one that flaps": ([OLD], 2, loop(0.3), False, "exit code 4, 9 restarts", (15, 40)),
    "one that lives almost so long": ([OLD], 2, loop(0.9), False, "never up for", (15, 60)),
    # As of a release: a second without an end is enough where nothing had exited.
    "one that lives longer": ([OLD], 2, loop(4.0), True, "web 2/2", (1, 2)),
    "one that crashed once": ([OLD], 2, new(restarts=1), True, "web 2/2", (5, 6)),
    "ended, nothing follows": (
        [OLD],
        2,
        new(state="failed", status="failed: exit code 4"),
        False,
        "web-2: failed: exit code 4",
        (3, 4),
    ),
    "rejected": ([OLD], 2, new(state="rejected", status="rejected: x"), False, "x", (3, 4)),
    "replaced for ever": ([OLD], 2, replaced(2), False, "it failed again and again", (4, 10)),
    "replaced slowly": ([OLD], 2, replaced(5), False, "it failed again and again", (10, 20)),
    "no place": ([OLD], 2, new(**NOWHERE), False, "no node has 8 GiB free", (patience.NOWHERE, 11)),
    "unhealthy": ([OLD], 2, new(**SICKLY), False, "running (unhealthy)", (SICK, SICK + 1)),
    "never made": ([OLD], 2, steadily(OLD), False, "web has 1 of 2 copies", (STUCK, STUCK + 1)),
    "waits for another": (
        [OLD],
        2,
        new(state="prepared", status="prepared: waits for db"),
        False,
        "waits for db",
        (STUCK, STUCK + 1),
    ),
    # Somebody else asked for the same a moment ago: their copies are waited for like ours.
    "what another command added": (
        [OLD, row(2, "starting", ready=False)],
        2,
        steadily(OLD, row(2, restarts=1)),
        True,
        "web 2/2",
        (5, 6),
    ),
    "what another command added fails": (
        [OLD, row(2, "assigned", ready=False)],
        2,
        steadily(OLD, row(2, "failed", status="failed: exit code 4")),
        False,
        "web-2: failed: exit code 4",
        (3, 4),
    ),
    "what had crashed before and starts again": (
        [OLD, row(2, "starting", ready=False, restarts=3)],
        2,
        steadily(OLD, row(2, ready=False, restarts=4)),
        True,
        "web 1/2",
        (0, 1),
    ),
    "an image that comes slowly": ([OLD], 2, loading, True, "web 2/2", (600, 602)),
}


@pytest.mark.parametrize("case", CASES)
def test_it_waits_for_what_it_added_and_not_for_ever(case):
    before, count, seen, good, said, (least, most) = CASES[case]
    scaling, now = Scaling("shop", {"web": count}, before, 0.0), 0.0
    while True:
        scaling.look(seen(now), now)
        if scaling.over(now):
            break
        now += STEP
        assert now < 700, "law: every wait ends"
    words = scaling.reached() if scaling.settled(now) else scaling.wrong(now)[1]
    assert (scaling.settled(now), said in words) == (good, True), words
    assert least <= now <= most


def test_several_services_are_waited_for_together():
    scaling = Scaling("shop", {"web": 2, "db": 0}, [OLD, row(1, service="db")], 0.0)
    rows = [OLD, row(2), row(1, service="db", stopping=True)]
    for now in (0.0, 2.0):
        scaling.look(rows, now)
    assert scaling.settled(2.0)
    assert not scaling.over(2.0), "db has not ended"
    scaling.look([OLD, row(2), row(1, "shutdown", service="db")], 2.5)
    assert scaling.over(2.5)
    assert scaling.reached() == "web 2/2, db 0/0"


def test_copies_that_get_on_are_let_while_another_has_failed():
    scaling = Scaling("shop", {"web": 2}, [], 0.0)
    failed = row(1, "rejected", status="rejected: no such device")
    for now in (0.0, 4.0):
        scaling.look([failed, row(2, "preparing")], now)
    assert not scaling.over(4.0)
    for now in (5.0, 6.5):
        scaling.look([failed, row(2)], now)
    assert scaling.over(6.5)
    found, why = scaling.wrong(6.5)
    assert (found["id"], why) == ("t-web-1", "web-1: rejected: no such device")


# ---- the command ----------------------------------------------------------------------------


def web(ready=1, replicas=1):
    return {"name": "web", "replicas": replicas, "tasks": replicas, "ready": ready}


@pytest.fixture
def shop(fake, monkeypatch, clock):
    monkeypatch.setattr(scale, "time", clock)
    fake.on("GET", "/v1/stacks/shop", {"services": [web()]})
    fake.on("POST", "/v1/stacks/shop/scale", {"name": "shop", "status": "running"})
    return fake


def answers(shop, before, after):
    def tasks(_request):
        return {"tasks": after if shop.asked("POST", ".*/scale") else before}

    def stack(_request):
        asked = shop.asked("POST", ".*/scale")
        return {"name": "shop", "services": [web(replicas=asked[0].body["services"]["web"])]}

    shop.on("GET", "/v1/stacks/shop/tasks", tasks)
    shop.on("GET", "/v1/stacks/shop", stack)


def test_scale(shop, corral):
    answers(shop, [OLD], [OLD, row(2)])
    done = corral("-p", "shop", "scale", "web=2")
    assert done.code == 0
    assert done.err.startswith("web-2 on alpha: running\nshop: web 2/2 (")
    body = shop.asked("POST", ".*/scale")[0].body
    assert body == {"services": {"web": 2}}
    assert corral("-p", "shop", "scale", "web").code == 2


@pytest.mark.parametrize("other", [1, 0, 5])
def test_another_number_by_another_command_ends_it_at_once(shop, corral, other):
    """The copies it asked for are not to come any more."""
    answers(shop, [OLD], [OLD])
    service = {"name": "web", "mode": "replicated", "replicas": other, "ready": 1}
    shop.on("GET", "/v1/stacks/shop", {"name": "shop", "services": [service]})
    done = corral("-p", "shop", "scale", "web=3")
    assert done.code == 1
    assert f"web is to have {other} by another command, no longer 3" in done.err
    assert "next: corral -p shop ps" in done.err


def test_a_copy_that_will_not_come_is_said_with_its_last_lines(shop, corral, monkeypatch):
    failed = row(2, "failed", status="failed: exit code 4", exit_code=4)
    answers(shop, [OLD], [OLD, failed])
    line = {"task": "t-web-2", "name": "web-2", "line": "no route to db"}
    shop.on("GET", "/v1/stacks/shop/logs", Lines([{**line, "task": "other"}, line]))
    monkeypatch.setattr("orchestrator.cli.show.scaling.FOLLOWED", 0.2)
    done = corral("-p", "shop", "scale", "web=2")
    assert done.code == 1
    assert "corral: scale of shop failed: web-2: failed: exit code 4\n" in done.err
    assert "  where: web-2 on alpha, exit code 4\n  last lines:\n    | no route to db\n" in done.err
    assert "  next: corral -p shop logs web\n" in done.err


def test_what_was_broken_before_is_named_and_not_held_against_it(shop, corral):
    answers(shop, [LOOPS], [LOOPS, row(2)])
    done = corral("-p", "shop", "scale", "web=2")
    assert done.code == 0
    assert "warning: as it was before scaling: web-1: restarting: exit code 4" in done.err
    assert "shop: web 1/2 (" in done.err


def test_nothing_that_moves_ends_with_what_it_waits_for(shop, corral, monkeypatch):
    monkeypatch.setattr("orchestrator.cli.show.scaling.STUCK", 0.2)
    answers(shop, [], [row(1, "prepared", status="prepared: waits for db")])
    done = corral("-p", "shop", "scale", "web=1")
    assert done.code == 1
    assert "no progress for 0 s: web-1: prepared: waits for db\n" in done.err
    assert "corral -p shop ps; it goes on when that changes" in done.err


def test_a_stopped_stack_has_nothing_noted(shop, corral):
    shop.on("POST", "/v1/stacks/shop/scale", {"name": "shop", "status": "stopped"})
    answers(shop, [], [])
    done = corral("-p", "shop", "scale", "web=0")
    assert done.code == 0
    assert done.err == "shop is stopped; noted for its next start: web=0\n"


@pytest.mark.parametrize(
    ("end", "flags", "code", "said"),
    [
        ({"ok": True, "state": "deployed"}, (), 0, "shop: scale done"),
        ({"ok": False, "state": "failed", "message": "web: no"}, (), 1, "scale of shop failed"),
        ({}, ("-d",), 0, ""),
    ],
)
def test_what_was_stopped_is_watched_as_a_start_is(shop, corral, end, flags, code, said):
    answers(shop, [], [])
    shop.on("POST", "/v1/stacks/shop/scale", {"name": "shop", "status": "deploying", "started": 4})
    shop.on("GET", "/v1/stacks/shop/progress", Lines([{"kind": "end", **end}]))
    done = corral("-p", "shop", "scale", *flags, "web=3")
    assert done.code == code, done.err
    assert said in done.err
    asked = shop.asked("GET", "/v1/stacks/shop/progress")
    assert [request.query for request in asked] == ([] if flags else [{"release": ["4"]}])


def test_detached_it_returns_at_once(shop, corral):
    answers(shop, [OLD], [OLD])
    assert corral("-p", "shop", "scale", "-d", "web=9").code == 0
    assert scale.LOOK < 1


WHY = "cannot mount the root: no inode is left on the disk (df -i): delete some files"


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        ("preparing", WHY, f"web-2 on alpha (preparing: {WHY})"),
        ("preparing", "", "web-2 on alpha (preparing)"),
        ("starting", "waits for its first healthy check", "(starting: waits for its first healthy"),
        ("pending", "no node fits", "(pending: no node fits)"),
        ("assigned", "", "web-2 on alpha (assigned)"),
    ],
)
def test_who_waits_is_told_the_reason_that_ps_has(state, reason, said):
    status = f"{state}: {reason}: 3 of 5 MiB; trying again in 30 s" if state == "preparing" else ""
    status = status or f"{state}: {reason}"
    shown = Board("shop")
    for line in lines_of({}, [row(2, state, reason=reason, status=status)]):
        shown.apply(line)
    assert said in still(shown, 20.0)


def test_what_waits_for_its_turn_is_not_waited_for():
    """A job of five, two at a time, scaled to six: two run, the others come by and by."""
    scaling = Scaling("shop", {"web": 6}, [], 0.0)
    two = [row(slot, started_at=1.0) for slot in (1, 2)]
    scaling.look(two, 10.0, {"web": 6}, {"web": 3})
    assert not scaling.settled(60.0)
    scaling.look(two, 60.0, {"web": 6}, {"web": 4})
    assert scaling.settled(60.0)
