"""Tasks that share another one's network: where they are, in which order, and how they go."""

from __future__ import annotations

import asyncio

import pytest

from specs.states import TaskState
from tests.orchestrator.control.builders import CHECK, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig
from tests.orchestrator.control.test_oneoffs import ended, run

pytestmark = pytest.mark.looptime

GIB = 1 << 30


def side(**more):
    """Return a service that shares web's network."""
    more.setdefault(
        "depends_on", {"web": {"condition": "service_started", "restart": True, "required": True}}
    )
    return {"network_mode": "service:web", "networks": {}, **more}


def reserve(gib, **more):
    return {"resources": {"reservations": {"memory": str(int(gib * GIB))}}, **more}


def together(rig):
    """Say whether every side is beside a web that is there, on its node; return the pairs."""
    webs = {task.id: task for task in rig.live("web")}
    found = []
    for task in rig.live("side"):
        web = webs.get(task.partner)
        if web is None or web.node != task.node or task.node is None:
            return None
        found.append((task.slot, web.slot))
    return sorted(found)


def order(rig, *words):
    return [line for line in rig.history if line.split()[1] in words]


@pytest.mark.parametrize(
    ("webs", "sides", "pairs"),
    [
        (1, 1, [(1, 1)]),
        (3, 3, [(1, 1), (2, 2), (3, 3)]),
        (1, 3, [(1, 1), (2, 1), (3, 1)]),  # as in Compose
        (2, 3, [(1, 1), (2, 2), (3, 1)]),
        (3, 1, [(1, 1)]),
        (2, 0, []),
    ],
)
async def test_who_goes_with_whom(webs, sides, pairs):
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=replicas(webs), side=side(**replicas(sides))))
        await rig.deployed()
        assert together(rig) == pairs
        assert all(not task.addresses for task in rig.live("side"))
        for task in rig.live("side"):
            assert rig.fake_of(task).wanted.tasks[task.id].partner == task.partner


async def test_of_global_services_those_on_one_node_are_a_pair():
    both = {"deploy": {"mode": "global"}}
    async with Rig(nodes=3) as rig:
        await rig.up(project(web=both, side=side(**both)))
        await rig.deployed()
        assert len(together(rig)) == 3
        assert len({task.node for task in rig.live("side")}) == 3


async def test_a_chain_is_on_one_node():
    chain = {
        "web": replicas(2),
        "side": side(**replicas(2)),
        "third": {
            "network_mode": "service:side",
            "networks": {},
            "depends_on": {"side": {"condition": "service_started", "restart": True}},
            **replicas(2),
        },
    }
    async with Rig(nodes=3) as rig:
        await rig.up(project(**chain))
        await rig.deployed()
        assert together(rig) == [(1, 1), (2, 2)]
        places = {(t.slot, t.node) for name in chain for t in rig.live(name)}
        assert len(places) == 2


async def test_the_partner_starts_first_and_stops_last():
    async with Rig(nodes=2) as rig:
        rig.how["web"] = Behaviour(start=2.0, stop=1.0)
        rig.how["side"] = Behaviour(stop=3.0)
        await rig.up(project(web={}, side=side()))
        await rig.deployed()
        assert order(rig, "running") == ["app-web-1 running", "app-side-1 running"]
        rig.history.clear()
        await rig.control.remove("app", volumes=False, timeout=None)
        await rig.until(lambda: not rig.tasks())
        assert order(rig, "shutdown") == ["app-side-1 shutdown", "app-web-1 shutdown"]


async def test_health_is_waited_for_of_the_own_partner():
    async with Rig(nodes=2) as rig:
        rig.how["web"] = Behaviour(healthy=5.0)
        healthy = {"web": {"condition": "service_healthy", "restart": True, "required": True}}
        await rig.up(project(web={**CHECK}, side=side(depends_on=healthy)))
        await rig.until(lambda: rig.tasks("side") and rig.tasks("side")[0].node)
        (waiting,) = rig.tasks("side")
        assert waiting.pending_reason == "waits for web to be healthy"
        await rig.deployed()
        assert order(rig, "running") == ["app-web-1 running", "app-side-1 running"]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("edge", [True, False])
@pytest.mark.parametrize("way", ["stop-first", "start-first"])
async def test_an_update_of_the_partner_renews_the_pair_and_the_others_stay(count, edge, way):
    """With or without ``restart: true`` in the file: the network is another one."""
    depends = {"web": {"condition": "service_started", "restart": edge, "required": True}}
    update = {"order": way, "parallelism": 1, "monitor": "1s"}

    def file(tag):
        web = {**replicas(count, update=update), "image": f"web:{tag}"}
        return project(web=web, side=side(**replicas(count), depends_on=depends))

    async with Rig(nodes=3) as rig:
        await rig.up(file(1))
        await rig.deployed()
        before = {t.id for t in rig.live("side")}
        fewest = count

        def watch(*_):
            nonlocal fewest
            fewest = min(fewest, len([t for t in rig.ready("side") if together(rig) is not None]))
            for task in rig.tasks("side"):
                partner = rig.cluster.tasks.get(task.partner)
                running = task.status.run is not None and task.status.run.alive
                assert not running or partner is not None, "its partner went before it"

        rig.watchers.append(watch)
        await rig.up(file(2))
        await rig.deployed(within=200)
        await rig.until(lambda: together(rig) is not None)
        assert together(rig) == [(n, n) for n in range(1, count + 1)]
        assert not before & {t.id for t in rig.live("side")}
        await rig.until(lambda: len(rig.ready("side")) == count)
        if count > 1:
            assert len({t.partner for t in rig.live("side")}) == count


async def test_an_update_of_the_other_leaves_the_partner():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(2), side=side(**replicas(2))))
        await rig.deployed()
        webs = {t.id for t in rig.live("web")}
        await rig.up(project(web=replicas(2), side=side(**replicas(2), environment={"A": "1"})))
        await rig.deployed()
        assert {t.id for t in rig.live("web")} == webs
        assert together(rig) == [(1, 1), (2, 2)]


async def test_a_partner_that_failed_for_good_is_followed_by_another_pair():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web={"restart": "on-failure"}, side=side()))
        await rig.deployed()
        web, other = rig.live("web")[0], rig.live("side")[0]
        rig.fake_of(web).end(web.id, 3)
        await rig.until(lambda: rig.live("web") and rig.live("web")[0].id != web.id)
        await rig.until(lambda: together(rig) == [(1, 1)] and rig.ready("side"))
        assert rig.live("side")[0].id != other.id


async def test_what_is_restarted_in_place_keeps_its_pair():
    async with Rig() as rig:
        rig.how["web"] = Behaviour(crashes=1, exit_code=3, runs_for=5.0)
        await rig.up(project(web={"restart": "always"}, side=side()))
        await rig.until(lambda: rig.ready("side"))
        (other,) = rig.live("side")
        await rig.until(lambda: rig.live("web")[0].status.restarts == 1 and rig.ready("web"))
        assert together(rig) == [(1, 1)]
        assert rig.live("side")[0].id == other.id
        assert rig.live("side")[0].status.restarts == 0


async def test_a_lost_node_loses_both_and_both_come_elsewhere():
    async with Rig(nodes=3) as rig:
        await rig.up(project(web={}, side=side()))
        await rig.deployed()
        lost = rig.fake_of(rig.live("web")[0])
        await lost.crash()
        await rig.until(lambda: any(t.node != lost.node.id for t in rig.ready("side")), within=120)
        (other,) = rig.ready("side")
        assert rig.cluster.tasks[other.partner].node == other.node != lost.node.id
        await lost.connect()  # it comes back, empty
        await rig.until(lambda: len(rig.tasks()) == 2 and together(rig) == [(1, 1)])


@pytest.mark.parametrize("returns", [True, False])
async def test_a_drained_node_is_left_by_both(returns):
    async with Rig(nodes=2) as rig:
        await rig.up(project(web={}, side=side()))
        await rig.deployed()
        node = rig.cluster.nodes[rig.live("web")[0].node]
        await rig.put_node(node.model_copy(update={"availability": "drain"}))
        await rig.until(
            lambda: (
                together(rig) == [(1, 1)]
                and rig.ready("side")
                and rig.ready("side")[0].node != node.id
            )
        )
        await rig.until(lambda: len(rig.tasks()) == 2)
        if returns:
            await rig.put_node(node)
            await rig.control.scale("app", {"web": 2, "side": 2})
            await rig.until(lambda: together(rig) == [(1, 1), (2, 2)])


async def test_scaling_makes_and_ends_pairs():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web={}, side=side()))
        await rig.deployed()
        await rig.control.scale("app", {"side": 2})
        await rig.until(lambda: together(rig) == [(1, 1), (2, 1)] and len(rig.ready("side")) == 2)
        await rig.control.scale("app", {"web": 2})  # the second has its own now
        await rig.until(lambda: together(rig) == [(1, 1), (2, 2)] and len(rig.ready("side")) == 2)
        await rig.control.scale("app", {"web": 1})
        await rig.until(lambda: together(rig) == [(1, 1), (2, 1)] and len(rig.ready("side")) == 2)
        await rig.until(lambda: len(rig.tasks()) == 3)


async def test_who_has_no_partner_waits_and_says_for_whom():
    async with Rig() as rig:
        await rig.up(project(web={}, side=side()))
        await rig.deployed()
        await rig.control.stop("app", 0, services=("web",))
        await rig.until(
            lambda: [t for t in rig.live("side") if "corral start web" in t.pending_reason]
        )
        await rig.start("web")
        await rig.until(lambda: together(rig) == [(1, 1)] and rig.ready("side"))


async def test_a_pair_is_placed_by_what_both_need():
    """Each alone would fit on the nearly full node, both together do not."""
    async with Rig(nodes=2) as rig:
        memory = rig.cluster.nodes["n1"].facts.memory / GIB
        first = {"placement": {"constraints": ["node.hostname==host1"]}}
        await rig.up(project(filler={"deploy": reserve(memory * 0.5, **first)}), stack="full")
        await rig.deployed("full")
        big = {"deploy": reserve(memory * 0.4)}
        await rig.up(project(web=big, side=side(**big)))
        await rig.deployed()
        assert together(rig) == [(1, 1)]
        assert rig.live("web")[0].node == "n2"


@pytest.mark.parametrize("chain", [False, True])
@pytest.mark.parametrize(
    ("full", "web", "way"),
    [
        (0.5, {}, "`corral up -d --force-recreate web` moves app-web-1, too, and n1 takes both"),
        (0.8, {}, "no other node takes both"),
        (0.5, {"placement": {"constraints": ["node.hostname==host2"]}}, "no other node takes both"),
    ],
)
async def test_one_that_does_not_fit_beside_its_partner_says_the_way_out(chain, full, web, way):
    """Who is there is not moved for another one's sake unless that is asked for."""
    async with Rig(nodes=2) as rig:
        memory = rig.cluster.nodes["n1"].facts.memory / GIB
        web = {"deploy": reserve(memory * 0.1, **web)}
        middle = {"middle": side()} if chain else {}
        last = side(deploy=reserve(memory * 0.3))
        if chain:
            edge = {"middle": {"condition": "service_started", "restart": True}}
            last = {**last, "network_mode": "service:middle", "depends_on": edge}

        def filler(node, share):
            there = {"placement": {"constraints": [f"node.hostname=={node}"]}}
            return project(filler={"deploy": reserve(memory * share, **there)})

        await rig.up(filler("host1", full), stack="one")
        await rig.up(project(web=web, **middle))
        await rig.deployed()
        (before,) = rig.live("web")
        assert before.node == "n2"
        await rig.up(filler("host2", 0.7), stack="two")
        await rig.deployed("two")
        await rig.up(project(web=web, **middle, side=last))
        name = "side"
        await rig.until(lambda: [t for t in rig.live(name) if t.pending_reason])
        await asyncio.sleep(30)
        (waits,) = rig.live(name)
        assert waits.node is None, "what is kept for it is no room that is not there"
        assert "it goes with app-" in waits.pending_reason
        assert "which is on host2: " in waits.pending_reason
        assert waits.pending_reason.endswith(way.replace("n1 takes", "host1 takes"))
        assert [t.id for t in rig.live("web")] == [before.id]
        if "force-recreate" in way:
            forced = {"services": ("web",), "force_recreate": True}
            await rig.up(project(web=web, **middle, side=last), **forced)
            await rig.until(lambda: rig.ready(name), within=300)
            places = {t.node for service in ("web", *middle, name) for t in rig.live(service)}
            assert places == {"n1"}


async def test_room_is_kept_for_one_that_is_missing():
    async with Rig(nodes=1) as rig:
        memory = rig.cluster.nodes["n1"].facts.memory / GIB
        big = {"deploy": reserve(memory * 0.4)}
        await rig.up(project(web=big, side=side(**big, restart="always")))
        await rig.deployed()
        (other,) = rig.live("side")
        rig.fake_of(other).end(other.id, 3)
        await rig.up(project(thief=big), stack="others")
        await rig.until(lambda: [t for t in rig.live("thief", "others") if t.pending_reason])
        await rig.until(lambda: rig.ready("side") and rig.ready("side")[0].id != other.id)
        assert together(rig) == [(1, 1)]
        (thief,) = rig.live("thief", "others")
        assert thief.node is None
        assert "memory" in thief.pending_reason


async def test_a_chain_is_updated_on_a_node_that_is_full():
    async with Rig(nodes=1) as rig:
        memory = rig.cluster.nodes["n1"].facts.memory / GIB
        big = {"deploy": reserve(memory * 0.3)}

        def file(tag):
            edge = {"side": {"condition": "service_started", "restart": True, "required": True}}
            third = {"network_mode": "service:side", "networks": {}, "depends_on": edge, **big}
            return project(web={**big, "image": f"web:{tag}"}, side=side(**big), third=third)

        await rig.up(file(1))
        await rig.deployed()
        await rig.up(file(2))
        assert (await rig.end_of(within=300)).state == "deployed"
        assert together(rig) == [(1, 1)]
        assert len(rig.ready("third")) == 1


@pytest.mark.parametrize("how", ["removed", "reduced", "smaller", "completed", "never"])
async def test_room_is_let_go_of_where_nobody_comes(how):
    async with Rig(nodes=1) as rig:
        memory = rig.cluster.nodes["n1"].facts.memory / GIB
        big = reserve(memory * 0.25)
        rig.how["side"] = Behaviour(exit_code=0, runs_for=1.0)
        policy = {"completed": "on-failure", "never": "no"}.get(how, "always")
        count = 2 if how == "reduced" else 1
        if policy == "always":
            del rig.how["side"]
        web = {"deploy": reserve(memory * 0.1)}
        sides = side(deploy={**big, "replicas": count}, restart=policy)
        await rig.up(project(web=web, side=sides))
        await rig.deployed()
        match how:
            case "removed":
                await rig.up(project(web=web), remove_orphans=True)
            case "reduced":
                await rig.up(project(web=web, side=side(deploy={**big, "replicas": 1})))
            case "smaller":
                small = reserve(memory * 0.05)
                await rig.up(project(web=web, side=side(deploy=small, restart="always")))
            case _:
                await rig.until(lambda: rig.tasks("side")[0].state.value == "complete")
        size = 0.6 if how == "reduced" else 0.8
        await rig.up(project(other={"deploy": reserve(memory * size)}), stack="others")
        await asyncio.sleep(60)
        assert len(rig.ready("other", "others")) == 1


async def test_what_the_other_asks_of_a_node_is_asked_for_both():
    async with Rig(nodes=3) as rig:
        rule = {"deploy": {"placement": {"constraints": ["node.hostname==host3"]}}}
        await rig.up(project(web={}, side=side(**rule)))
        await rig.deployed()
        assert {t.node for t in rig.live()} == {"n3"}


async def test_a_controller_that_starts_in_between_goes_on():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web={}, side=side()))
        await rig.deployed()
        before = {t.id for t in rig.live()}
        await rig.restart_controller()
        await rig.until(lambda: len(rig.ready("side")) == 1)
        assert {t.id for t in rig.live()} == before
        assert together(rig) == [(1, 1)]


async def test_after_a_reboot_both_run_again_in_order():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web={}, side=side()))
        await rig.deployed()
        before = {t.id for t in rig.live()}
        node = rig.fake_of(rig.live("web")[0])
        await node.reboot()
        await node.connect()
        await rig.until(lambda: all(len(t.status.runs) == 2 for t in rig.live()))
        await rig.until(lambda: len(rig.ready("web")) == len(rig.ready("side")) == 1)
        assert {t.id for t in rig.live()} == before
        first, second = (rig.ready(name)[0].status.run for name in ("web", "side"))
        assert first.started_at < second.started_at


@pytest.mark.parametrize(("there", "code"), [(True, 0), (False, None)])
async def test_a_one_off_goes_where_its_partner_is(there, code):
    services = {"web": {}, "side": side(depends_on={})}
    async with Rig(nodes=3) as rig:
        rig.how["side:1"] = Behaviour(exit_code=0, runs_for=1.0)
        await rig.up(project(web=services["web"], other=replicas(2)))
        await rig.deployed()
        if not there:
            await rig.control.stop("app", 0, services=("web",))
            await rig.until(lambda: not rig.live("web"))
        one = await run(rig, project(**services), "side", no_deps=True)
        await rig.until(lambda: ended(one))
        if there:
            (web,) = rig.live("web")
            assert (one().task.partner, one().task.node) == (web.id, web.node)
            assert one().task.status.run.exit_code == code
        else:
            assert one().task.status.reason == (
                "web, whose network it shares, does not run: corral up -d web"
            )


async def test_a_one_off_that_does_not_fit_beside_its_partner_says_beside_whom():
    async with Rig(nodes=2) as rig:
        memory = rig.cluster.nodes["n1"].facts.memory / GIB
        big = {"deploy": reserve(memory * 0.6)}
        await rig.up(project(web=big))
        await rig.deployed()
        (web,) = rig.live("web")
        services = project(web=big, side=side(depends_on={}, **big))
        one = await run(rig, services, "side", no_deps=True)
        await rig.until(lambda: one().task.pending_reason)
        name = rig.cluster.nodes[web.node].name
        assert one().task.pending_reason.startswith(f"it goes with app-web-1, which is on {name}: ")
        assert "lacks memory" in one().task.pending_reason


@pytest.mark.parametrize(
    "how", ["replaced", "stopped", "scaled", "drained", "failed", "ended", "restarted"]
)
async def test_a_one_off_ends_before_its_partner_and_says_so(how):
    """Its network would be gone, and no other is made of it. Who is restarted in place keeps it."""

    def file(tag):
        policy = "always" if how in ("failed", "restarted") else "no"
        web = replicas(2, image=f"web:{tag}", restart=policy)
        return project(web=web, side=side(depends_on={}, **replicas(0)))

    async with Rig(nodes=3) as rig:
        rig.how["side"] = Behaviour(stop=3.0)
        rig.how["web"] = Behaviour(stop=1.0)
        await rig.up(file(1))
        await rig.deployed()
        one = await run(rig, file(1), "side", no_deps=True)
        await rig.until(lambda: one().task.state is TaskState.RUNNING)
        web = rig.cluster.tasks[one().task.partner]
        if how == "replaced":
            await rig.up(file(2))
        elif how == "stopped":
            await rig.control.stop("app", None, services=("web",))
        elif how == "scaled":
            await rig.control.scale("app", {"web": 0})
        elif how == "drained":
            node = rig.cluster.nodes[web.node]
            await rig.put_node(node.model_copy(update={"availability": "drain"}))
        elif how == "restarted":
            await rig.restart("web")
        else:
            rig.fake_of(web).end(web.id, 3 if how == "failed" else 0)
        if how in ("ended", "restarted"):  # its network is there still
            await asyncio.sleep(60)
            assert not one().over
            return
        await rig.until(lambda: ended(one), within=120)
        assert one().task.pending_reason == f"{web.name}, whose network it shares, goes"
        if how == "failed":
            return
        names = (web.name, one().task.name)
        ended_in = lambda: [line for line in rig.history if line.endswith(" shutdown")]  # noqa: E731
        await rig.until(lambda: f"{web.name} shutdown" in ended_in(), within=60)
        assert [line.split()[0] for line in ended_in() if line.split()[0] in names] == [
            one().task.name, web.name,
        ]  # fmt: skip


async def frozen(rig, count=1, *, new=False):
    """Have pairs whose last release failed by another service; new: after it moved them."""

    def file(version, **more):
        kept = {**replicas(count), "restart": "always", "environment": {"V": version}}
        return project(web=kept, side=side(**kept), **more)

    await rig.up(file("1"))
    await rig.deployed()
    rig.how["bad"] = Behaviour(exit_code=3, runs_for=0.1)
    edge = {name: {"condition": "service_started"} for name in ("web", "side")}
    bad = {"restart": "no", "depends_on": edge}
    await rig.up(file("2" if new else "1", bad=bad))
    assert (await rig.end_of(within=300)).state == "failed"


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize(
    ("how", "count", "pairs"),
    [
        ("crash", 1, [(1, 1)]),
        ("drain", 1, [(1, 1)]),
        ("end", 1, [(1, 1)]),
        ("drain", 2, [(1, 1), (2, 2)]),
        ("end", 2, [(1, 1), (2, 2)]),
        ("scale", 2, [(1, 1), (2, 1)]),
        ("both", 2, [(1, 1)]),
    ],
)
async def test_a_pair_comes_back_whole_after_a_release_failed(how, count, pairs, new):
    async with Rig(nodes=3) as rig:
        await frozen(rig, count, new=new)
        web = next(task for task in rig.live("web") if task.slot == 1)
        match how:
            case "crash":
                await rig.fake_of(web).crash()
            case "drain":
                node = rig.cluster.nodes[web.node]
                await rig.put_node(node.model_copy(update={"availability": "drain"}))
            case "end":
                rig.fake_of(web).end(web.id, 3)
            case "scale":
                await rig.control.scale("app", {"web": 1})
            case "both":
                await rig.control.scale("app", {"web": 1, "side": 1})
        await asyncio.sleep(300)
        if how == "crash":
            wrong = [t for t in rig.live("side") if t.node != web.node and not t.status.ready]
            assert not wrong
            assert len({t.id for t in rig.live("side") if t.node != web.node}) == 1
        else:
            assert together(rig) == pairs
            assert len(rig.ready("side")) == len(pairs)


@pytest.mark.parametrize("edge", [True, False])
@pytest.mark.parametrize("action", ["pause", "rollback"])
@pytest.mark.parametrize("checked", [True, False])
async def test_an_update_of_the_partner_that_fails_leaves_whole_pairs(edge, action, checked):
    depends = {"web": {"condition": "service_started", "restart": edge, "required": True}}
    update = {"order": "start-first", "parallelism": 1, "monitor": "1s", "failure_action": action}
    check = CHECK if checked else {}

    def file(tag):
        web = {**replicas(2, update=update), **check, "image": f"web:{tag}", "restart": "no"}
        return project(web=web, side=side(**replicas(2), depends_on=depends))

    async with Rig(nodes=2) as rig:
        await rig.up(file(1))
        await rig.deployed()
        rig.how["web:2"] = Behaviour(exit_code=3, runs_for=0.2, healthy=5.0 if checked else 0.0)
        await rig.up(file(2))
        await rig.end_of(within=300)
        await asyncio.sleep(60)
        partners = {task.slot for task in rig.live("web") if task.status.ready}
        assert {slot for slot, _ in together(rig)} == partners
        assert {task.slot for task in rig.ready("side")} == partners


async def test_a_node_that_goes_leaves_no_one_beside_a_number_that_is_not_there():
    """Of three tasks of a global service the first goes; two of another one share those left."""
    async with Rig(nodes=3) as rig:
        rule = {"placement": {"constraints": ["node.labels.go != 1"]}}
        web = {"deploy": {"mode": "global", **rule}}
        await rig.up(project(web=web, side=side(**replicas(2))))
        await rig.deployed()
        first = next(task for task in rig.live("web") if task.slot == 1)
        node = rig.cluster.nodes[first.node]
        await rig.put_node(node.model_copy(update={"labels": {"go": "1"}}))
        await asyncio.sleep(120)
        assert {task.slot for task in rig.live("web")} == {2, 3}
        assert together(rig) == [(1, 2), (2, 3)]
        assert len(rig.ready("side")) == 2


async def test_one_of_a_global_service_that_is_replaced_moves_only_its_own_pair():
    async with Rig(nodes=3) as rig:
        web = {"deploy": {"mode": "global"}, "restart": "always"}
        await rig.up(project(web=web, side=side(**replicas(2), restart="always")))
        await rig.deployed()
        stays = next(task for task in rig.live("side") if task.slot == 2)
        first = next(task for task in rig.live("web") if task.slot == 1)
        rig.fake_of(first).end(first.id, 3)
        await asyncio.sleep(60)
        assert together(rig) == [(1, 1), (2, 2)]
        assert stays.id in {task.id for task in rig.ready("side")}
