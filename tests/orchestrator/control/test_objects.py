"""Networks, volumes, secrets and configs made by hand: who may use and remove them, and when."""

from __future__ import annotations

import asyncio
import base64

import pytest

from orchestrator.control.adopting import adopt
from orchestrator.control.mirror.cluster import Cluster
from orchestrator.control.mirror.users import users
from orchestrator.control.planning.networks import REST
from orchestrator.control.planning.reaper import CONTENT_GRACE
from orchestrator.errors import Conflict, Invalid, NotFound, Unavailable
from orchestrator.store.memory import MemoryStore
from specs.api import Rollback
from specs.objects import CreateContent, CreateNetwork, CreateVolume
from specs.problems import Position
from specs.states import ReleaseState as S
from tests.orchestrator.control.builders import project, replicas
from tests.orchestrator.control.rig import Behaviour, PlainSealer, Rig

pytestmark = pytest.mark.looptime

OUTSIDE = {"networks": {"default": {"name": "shared", "external": True}}}
OWN = {"networks": {"default": {"name": "shared"}}}


def names(rows):
    return [row.name for row in rows]


def mounting(volume="data", **entry):
    """A service that mounts a volume, and the volume's entry."""
    mount = {"type": "volume", "source": "data", "target": "/data"}
    return {"db": {"volumes": [mount]}}, {"volumes": {"data": {"name": volume, **entry}}}


def reading(kind, name):
    ref = {"source": "key", "target": "/key"}
    return {"web": {kind: [ref]}}, {kind: {"key": {"name": name, "external": True}}}


def content(name, data=b"x", *, secret=True, **more):
    return CreateContent(name=name, data=base64.b64encode(data).decode(), secret=secret, **more)


async def gone(rig, stack="app"):
    await rig.control.remove(stack, volumes=False, timeout=0)
    await rig.until(lambda: stack not in rig.cluster.stacks)


# ---- networks -------------------------------------------------------------------------------


async def test_a_network_by_hand_joins_stacks_and_outlives_them():
    async with Rig(nodes=2) as rig:
        made = await rig.control.make(CreateNetwork(name="shared", labels={"a": "b"}))
        (row,) = rig.control.networks().networks
        assert (row.id, row.name, row.stack, row.labels) == (made.id, "shared", "", {"a": "b"})
        await rig.up(project(db={}, top=OUTSIDE), stack="one")
        await rig.up(project(web={}, top=OUTSIDE), stack="two")
        await rig.deployed("one")
        await rig.deployed("two")
        assert {n for t in rig.cluster.tasks.values() for n in t.addresses} == {made.id}
        (row,) = rig.control.networks().networks
        assert row.used_by == ("one", "two")
        assert set(row.tasks) == {"one-db-1", "two-web-1"}
        with pytest.raises(Conflict) as refused:
            await rig.control.drop("network", "shared")
        assert "in use by stacks one, two" in refused.value.detail
        await gone(rig, "one")
        await gone(rig, "two")
        assert names(rig.control.networks().networks) == ["shared"]
        await rig.control.drop("network", "shared")
        assert rig.control.networks().networks == ()
        await rig.until(lambda: not rig.cluster.networks, within=4 * REST)
        assert not any(rig.cluster.leases.values())


async def test_what_a_stack_made_stays_for_another_and_goes_with_the_last():
    async with Rig() as rig:
        await rig.up(project(db={}, top=OWN), stack="owner")
        await rig.deployed("owner")
        await rig.up(project(web={}, top=OUTSIDE), stack="guest")
        await rig.deployed("guest")
        await gone(rig, "owner")
        await asyncio.sleep(REST)
        assert names(rig.control.networks().networks) == ["shared"]
        await rig.control.stop("guest", 0)
        await gone(rig, "guest")
        await rig.until(lambda: not rig.cluster.networks, within=4 * REST)


MAKING = {
    "twice": (CreateNetwork(name="there"), Conflict, "exists already"),
    "no name": (CreateNetwork(name=""), Invalid, "needs a name"),
    "a path": (CreateNetwork(name="../x"), Invalid, "not a valid name"),
    "driver": (CreateNetwork(name="n", driver="macvlan"), Invalid, "macvlan"),
    "encrypted": (CreateNetwork(name="n", options={"encrypted": ""}), Invalid, "encrypted"),
    "mtu": (CreateNetwork(name="n", options={"mtu": "9"}), Invalid, "MTU"),
    "IPv6": (CreateNetwork(name="n", subnets=("fd00::/64",)), Invalid, "IPv4"),
    "no subnet": (CreateNetwork(name="n", subnets=("10.1/99",)), Invalid, "10.1/99"),
    "of a node": (CreateNetwork(name="n", subnets=("192.0.2.0/24",)), Conflict, "node host1"),
    "taken": (CreateNetwork(name="n", subnets=("172.30.0.0/25",)), Conflict, "network there"),
}


@pytest.mark.parametrize("case", MAKING)
async def test_networks_that_cannot_be_made(case):
    asked, kind, words = MAKING[case]
    async with Rig() as rig:
        await rig.control.make(CreateNetwork(name="there", subnets=("172.30.0.0/24",)))
        with pytest.raises(kind) as refused:
            await rig.control.make(asked)
        assert words in refused.value.detail
        assert names(rig.control.networks().networks) == ["there"]


async def test_a_subnet_that_still_rests_is_taken_back_by_its_own_name():
    async with Rig() as rig:
        asked = CreateNetwork(name="shared", subnets=("172.30.0.0/24",))
        await rig.control.make(asked)
        await rig.up(project(web={}, top=OUTSIDE))
        await rig.deployed()
        await gone(rig)
        await rig.control.drop("network", "shared")
        await rig.control.make(asked)
        (record,) = rig.cluster.networks.values()
        assert (record.pool, record.retired) == ("172.30.0.0/24", False)


async def test_a_network_is_removed_although_a_node_with_a_task_on_it_is_silent():
    async with Rig(nodes=2) as rig:
        await rig.control.make(CreateNetwork(name="shared"))
        on_two = {"deploy": {"placement": {"constraints": ["node.name == host2"]}}}
        await rig.up(project(web=on_two, top=OUTSIDE))
        await rig.deployed()
        await rig.nodes["n2"].crash(remembers=True)
        await rig.until(lambda: rig.cluster.conditions["n2"].status == "down")
        await rig.control.remove("app", volumes=False, timeout=0)
        await rig.control.drop("network", "shared")
        assert rig.control.networks().networks == (), "for people it is gone"
        await asyncio.sleep(2 * REST)
        assert rig.cluster.networks, "its addresses are not given out while a task may have one"
        await rig.nodes["n2"].connect()
        await rig.until(lambda: not rig.cluster.networks, within=4 * REST)
        assert rig.nodes["n2"].wanted.networks == {}


# ---- what is external must be there -----------------------------------------------------------

MISSING = {
    "network": ({"web": {}}, OUTSIDE, "networks.default", "corral network create shared"),
    "volume": (*mounting("data", external=True), "volumes.data", "corral volume create data"),
    "secret": (*reading("secrets", "key"), "secrets.key", "corral secret create key FILE"),
    "config": (*reading("configs", "key"), "configs.key", "corral config create key FILE"),
}


@pytest.mark.parametrize("kind", MISSING)
async def test_a_missing_external_object_is_an_error_with_its_line(kind):
    services, top, path, hint = MISSING[kind]
    async with Rig() as rig:
        at = {path: Position("compose.yaml", 7, 3)}
        with pytest.raises(Invalid) as refused:
            await rig.up(project(**services, top=top), origins=at)
        (problem,) = refused.value.problems
        assert problem.code == "missing"
        assert f"external {kind}" in problem.message
        assert hint in problem.hint
        assert problem.position == at[path]
        assert {} == rig.cluster.stacks == rig.cluster.volumes == rig.cluster.networks


async def test_dockers_own_networks_are_named():
    async with Rig() as rig:
        top = {"networks": {"default": {"name": "host", "external": True}}}
        with pytest.raises(Invalid) as refused:
            await rig.up(project(web={}, top=top))
        assert "network_mode: host" in refused.value.problems[0].hint


# ---- volumes --------------------------------------------------------------------------------


async def test_a_volume_gets_its_home_where_it_is_first_used():
    async with Rig(nodes=3) as rig:
        await rig.control.make(CreateVolume(name="data"))
        await rig.control.make(CreateVolume(name="there", node="host3"))
        services, top = mounting("data", external=True)
        await rig.up(project(**services, top=top), stack="one")
        await rig.deployed("one")
        (task,) = rig.live(stack="one")
        assert rig.cluster.volumes["data"].node == task.node
        assert rig.cluster.volumes["data"].stack == ""
        services, top = mounting("there", external=True)
        await rig.up(project(**services, top=top), stack="two")
        await rig.deployed("two")
        assert rig.live(stack="two")[0].node == "n3"
        rows = {row.name: row for row in rig.control.volumes().volumes}
        assert rows["there"].node == "host3"
        assert rows["there"].services == ("two/db",)


async def test_down_v_takes_what_the_stack_made_and_nothing_else():
    async with Rig() as rig:
        await rig.control.make(CreateVolume(name="hers"))
        mounts = [
            {"type": "volume", "source": key, "target": f"/{key}"}
            for key in ("mine", "hers", "was")
        ]
        top = {
            "volumes": {
                "mine": {"name": "app_mine"},
                "hers": {"name": "hers", "external": True},
                "was": {"name": "app_was"},
            }
        }
        await rig.up(project(db={"volumes": mounts}, top=top))
        await rig.deployed()
        # What the file calls external from now on is nobody's: the stack made it once.
        top["volumes"]["was"]["external"] = True
        await rig.up(project(db={"volumes": mounts}, top=top))
        await rig.deployed()
        await rig.control.remove("app", volumes=True, timeout=0)
        await rig.until(lambda: "app" not in rig.cluster.stacks)
        assert rig.agents.removed == [("n1", "app_mine")]
        assert names(rig.control.volumes().volumes) == ["app_was", "hers"]


async def test_a_volume_in_use_is_not_removed_and_the_stack_is_named():
    async with Rig() as rig:
        services, top = mounting("app_data")
        await rig.up(project(**services, top=top))
        await rig.deployed()
        await rig.control.stop("app", 0)
        with pytest.raises(Conflict) as refused:
            await rig.control.drop("volume", "app_data")
        assert "in use by stack app" in refused.value.detail
        await gone(rig)
        assert names(rig.control.volumes().volumes) == ["app_data"], "down without -v keeps it"
        await rig.control.drop("volume", "app_data")
        await rig.until(lambda: not rig.cluster.volumes)
        assert rig.agents.removed == [("n1", "app_data")]
        with pytest.raises(NotFound):
            await rig.control.drop("volume", "app_data")


async def test_a_stack_that_means_a_volume_of_another_is_warned():
    async with Rig() as rig:
        await rig.control.make(CreateVolume(name="data"))
        services, top = mounting("data")
        row = await rig.control.deploy("app", rig.request(project(**services, top=top)))
        (warning,) = [w for w in row.warnings if "volume data" in w.message]
        assert "external: true" in warning.hint


VOLUMES = {
    "as it is": (CreateVolume(name="there"), None, ""),
    "on its node": (CreateVolume(name="there", node="host2"), None, ""),
    "elsewhere": (CreateVolume(name="there", node="host1"), Conflict, "another node"),
    "no node": (CreateVolume(name="v", node="host9"), NotFound, "host9"),
    "driver": (CreateVolume(name="v", driver="rexray"), Invalid, "rexray"),
    "a path": (CreateVolume(name="a/b"), Invalid, "not a valid name"),
    "no name": (CreateVolume(), None, ""),
}


@pytest.mark.parametrize("case", VOLUMES)
async def test_volumes_that_can_be_made_and_that_cannot(case):
    asked, kind, words = VOLUMES[case]
    async with Rig(nodes=2) as rig:
        await rig.control.make(CreateVolume(name="there", node="host2"))
        if kind is None:
            made = await rig.control.make(asked)
            assert made.name == asked.name or made.name
            return
        with pytest.raises(kind) as refused:
            await rig.control.make(asked)
        assert words in refused.value.detail


# Where a node or the controller is not there while a volume is removed: the record is marked
# first, then the data goes, then the record. Each row: what happens after the mark.
INTERRUPTED = ("node is silent", "controller is killed", "node leaves the cluster", "both at once")


@pytest.mark.parametrize("case", INTERRUPTED)
async def test_a_volume_that_is_being_removed_is_removed_in_the_end(case):
    async with Rig(nodes=2) as rig:
        await rig.control.make(CreateVolume(name="data", node="host2"))
        answers = asyncio.Event()

        async def remove_volume(node, name):
            if not answers.is_set():
                raise Unavailable(f"node {node} is not reached")
            rig.agents.removed.append((node, name))

        rig.agents.remove_volume = remove_volume
        await rig.nodes["n2"].cut()
        await rig.until(lambda: rig.cluster.conditions["n2"].status == "down")
        await rig.control.drop("volume", "data")
        (row,) = rig.control.volumes().volumes
        assert (row.removing, "node host2 does not answer" in row.reason) == (True, True)
        with pytest.raises(Conflict):
            await rig.control.make(CreateVolume(name="data"))
        services, top = mounting("data")
        with pytest.raises(Invalid) as refused:
            await rig.up(project(**services, top=top))
        assert "is being removed" in refused.value.problems[0].message
        if case in ("controller is killed", "both at once"):
            await rig.halt()
            await rig.boot()
        if case == "node leaves the cluster":
            await rig.remove_node("n2")
        else:
            await asyncio.sleep(30)
            assert rig.cluster.volumes, "its data is still there"
            answers.set()
        await rig.until(lambda: not rig.cluster.volumes)
        there = [] if case == "node leaves the cluster" else [("n2", "data")]
        assert rig.agents.removed == there


async def test_the_data_of_a_volume_waits_for_the_last_task_that_has_it():
    async with Rig(nodes=2) as rig:
        await rig.control.make(CreateVolume(name="data", node="host2"))
        services, top = mounting("data", external=True)
        await rig.up(project(**services, top=top))
        await rig.deployed()
        await rig.nodes["n2"].crash(remembers=True)
        await rig.until(lambda: rig.cluster.conditions["n2"].status == "down")
        await rig.control.remove("app", volumes=False, timeout=0)
        await rig.control.drop("volume", "data")
        await asyncio.sleep(60)
        assert rig.agents.removed == []
        await rig.nodes["n2"].connect()
        await rig.until(lambda: not rig.cluster.volumes)
        assert rig.agents.removed == [("n2", "data")]
        assert not rig.nodes["n2"].tasks


# ---- secrets and configs ----------------------------------------------------------------------


async def had_by_two_and_not_now(rig, services, top):
    for image in ("web:1", "web:2"):
        await rig.up(project(web={**services["web"], "image": image}, top=top))
        await rig.deployed()
    await rig.up(project(web={"image": "web:3"}))
    await rig.deployed()
    return "releases 1, 2 of stack app had it: corral rollback to that is refused now"


async def had_by_one_that_was_taken_down(rig, services, top):
    await rig.up(project(**services, top=top))
    await rig.deployed()
    await gone(rig)
    return "release 1 of stack app had it: corral rollback to that is refused now"


async def had_by_one_that_failed(rig, services, top):
    await rig.up(project(web={"image": "web:0"}))
    await rig.deployed()
    rig.how["web"] = Behaviour(exit_code=1, runs_for=0.1)
    await rig.up(project(web={**services["web"], "restart": "no"}, top=top))
    await rig.until(lambda: rig.release().state in (S.FAILED, S.ROLLED_BACK), within=900)
    await gone(rig)
    return ""


async def only_in_the_file(rig, services, top):
    await rig.up(project(web={}, top=top))
    await rig.deployed()
    await gone(rig)
    return ""


async def never_used(_rig, _services, _top):
    return ""


@pytest.mark.parametrize("kind", ["secrets", "configs"])
@pytest.mark.parametrize(
    "had",
    [had_by_two_and_not_now, had_by_one_that_was_taken_down, had_by_one_that_failed,
     only_in_the_file, never_used],
)  # fmt: skip
async def test_who_takes_a_version_away_hears_which_releases_had_it(kind, had):
    word = kind.removesuffix("s")
    async with Rig(nodes=2) as rig:
        await rig.control.make(content("key", b"deep", secret=word == "secret"))
        expected = await had(rig, *reading(kind, "key"))
        dropped = await rig.control.drop(word, "key")
        assert (dropped.name, dropped.needed) == ("key", expected)
        if expected:
            with pytest.raises(Invalid) as refused:
                await rig.control.rollback("app", Rollback(key="k", to=1))
            said = " ".join(problem.message for problem in refused.value.problems)
            assert f"{word} key was removed since release 1" in said


@pytest.mark.parametrize("kind", ["secrets", "configs"])
async def test_a_secret_by_hand_reaches_the_node_of_the_task_only(kind):
    secret, word = kind == "secrets", kind.removesuffix("s")
    async with Rig(nodes=2) as rig:
        made = await rig.control.make(content("key", b"deep", secret=secret))
        services, top = reading(kind, "key")
        await rig.up(project(**services, top=top))
        await rig.deployed()
        (task,) = rig.live()
        held = {node: set(fake.wanted.contents) for node, fake in rig.nodes.items()}
        other = next(node for node in rig.nodes if node != task.node)
        assert held == {task.node: {made.id}, other: set()}
        (row,) = rig.control.contents(secret=secret).contents
        assert (row.name, row.size, row.used_by) == ("key", 4, ("app",))
        assert rig.control.contents(secret=not secret).contents == ()
        with pytest.raises(Conflict) as refused:
            await rig.control.drop(word, "key")
        assert "in use by stack app" in refused.value.detail
        await gone(rig)
        await asyncio.sleep(2 * CONTENT_GRACE)
        assert names(rig.control.contents(secret=secret).contents) == ["key"], "it is kept unused"
        await rig.control.drop(word, "key")
        assert not rig.cluster.contents


async def test_a_secret_is_changed_by_another_name():
    async with Rig() as rig:
        await rig.control.make(content("key", b"old"))
        with pytest.raises(Conflict) as refused:
            await rig.control.make(content("key", b"new"))
        assert "never changes" in refused.value.detail
        new = await rig.control.make(content("key-2", b"new"))
        services, top = reading("secrets", "key")
        await rig.up(project(**services, top=top))
        await rig.deployed()
        (before,) = rig.live()
        services, top = reading("secrets", "key-2")
        await rig.up(project(**services, top=top))
        await rig.deployed()
        (after,) = rig.live()
        assert after.id != before.id
        assert set(rig.nodes["n1"].wanted.contents) == {new.id}
        await rig.control.drop("secret", "key")


async def test_a_stacks_own_secret_of_the_same_value_is_another_object():
    async with Rig() as rig:
        made = await rig.control.make(content("key", b"same"))
        ref = {"source": "mine", "target": "/mine"}
        request = rig.request(
            project(web={"secrets": [ref]}, top={"secrets": {"mine": {"name": "app_mine"}}}),
            contents={"secrets.mine": base64.b64encode(b"same").decode()},
        )
        await rig.control.deploy("app", request)
        await rig.deployed()
        assert made.id not in rig.nodes["n1"].wanted.contents
        rows = {row.name: row for row in rig.control.contents(secret=True).contents}
        assert (rows["key"].used_by, rows["app_mine"].stack) == ((), "app")
        await rig.control.drop("secret", "key")
        with pytest.raises(Conflict) as refused:
            await rig.control.drop("secret", "app_mine")
        assert "of the file of stack app" in refused.value.detail


CONTENTS = {
    "empty": (content("key", b""), "1 byte"),
    "too large": (content("key", b"x" * (500 * 1024 + 1)), "500"),
    "no base64": (CreateContent(name="key", data="%%", secret=True), "not base64"),
    "a path": (content("../key"), "not a valid name"),
    "no name": (content(""), "needs a name"),
}


@pytest.mark.parametrize("case", CONTENTS)
async def test_secrets_that_cannot_be_made(case):
    asked, words = CONTENTS[case]
    async with Rig() as rig:
        with pytest.raises(Invalid) as refused:
            await rig.control.make(asked)
        assert words in refused.value.detail
        assert not rig.cluster.contents


async def test_the_largest_secret_fits():
    async with Rig() as rig:
        await rig.control.make(content("key", b"x" * 500 * 1024))
        assert rig.control.contents(secret=True).contents[0].size == 500 * 1024


async def test_what_was_made_by_hand_comes_through_a_restart_of_the_controller():
    async with Rig() as rig:
        await rig.control.make(CreateNetwork(name="net"))
        await rig.control.make(CreateVolume(name="vol"))
        await rig.control.make(content("sec"))
        await rig.control.make(content("con", secret=False))
        await rig.restart_controller()
        await rig.up(project(web=replicas(1)))
        await rig.deployed()
        assert "net" in names(rig.control.networks().networks)
        assert names(rig.control.volumes().volumes) == ["vol"]
        assert names(rig.control.contents(secret=True).contents) == ["sec"]
        assert names(rig.control.contents(secret=False).contents) == ["con"]
        assert users(rig.cluster).volumes == {}


# ---- what a volume is made of -----------------------------------------------------------------

NFS = {"type": "nfs", "o": "addr=192.0.2.9,nfsvers=4", "device": ":/export"}
MEMORY = {"type": "tmpfs", "o": "size=1m"}
FOLDER = {"type": "none", "o": "bind", "device": "/srv/data"}
PLACED = {
    # options -> on how many nodes its tasks may be, the record's home
    "a share": (NFS, 3, ""),
    "memory": (MEMORY, 1, "n"),
    "a folder of the node": (FOLDER, 1, "n"),
    "a folder of ours": ({}, 1, "n"),
}


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("case", PLACED)
async def test_where_tasks_with_a_volume_may_be(case, by_hand):
    options, count, home = PLACED[case]
    async with Rig(nodes=3) as rig:
        if by_hand:
            await rig.control.make(CreateVolume(name="data", options=options))
        entry = {"external": True} if by_hand else {"driver_opts": options}
        services, top = mounting("data", **entry)
        services["db"] |= replicas(3)
        await rig.up(project(**services, top=top))
        await rig.deployed()
        assert len({task.node for task in rig.live()}) == count
        for task in rig.live():
            told = rig.fake_of(task).tasks[task.id].assignment
            assert told.volume_options == ({"data": options} if options else {})
        (row,) = rig.control.volumes().volumes
        assert row.options == options
        assert bool(row.node) is bool(home)
        await gone(rig)
        await rig.control.drop("volume", "data")
        await rig.until(lambda: not rig.cluster.volumes)
        assert [name for _, name in rig.agents.removed] == ["data"] * bool(home)


async def test_other_options_are_another_volume_for_the_tasks():
    async with Rig() as rig:
        services, top = mounting("data", driver_opts=MEMORY)
        await rig.up(project(**services, top=top))
        await rig.deployed()
        (before,) = rig.live()
        services, top = mounting("data", driver_opts={**MEMORY, "o": "size=2m"})
        await rig.up(project(**services, top=top))
        await rig.deployed()
        (after,) = rig.live()
        assert after.id != before.id
        assert rig.cluster.volumes["data"].options["o"] == "size=2m"


async def test_a_node_of_an_older_version_gets_no_volume_with_options():
    async with Rig(nodes=2) as rig:
        for node in list(rig.cluster.nodes.values()):
            facts = node.facts.model_copy(update={"wire": 1 if node.id == "n1" else 2})
            await rig.put_node(node.with_facts(facts))
        await rig.until(lambda: rig.cluster.nodes["n1"].facts.wire == 1)
        services, top = mounting("data", driver_opts=NFS)
        services["db"] |= replicas(3)
        await rig.up(project(**services, top=top))
        await rig.deployed()
        assert {task.node for task in rig.live()} == {"n2"}


@pytest.mark.parametrize("by_hand", [False, True])
async def test_a_level_that_forbids_binds_forbids_a_folder_of_the_node(by_hand):
    async with Rig() as rig:
        if by_hand:
            await rig.control.make(CreateVolume(name="data", options=FOLDER))
        entry = {"external": True} if by_hand else {"driver_opts": FOLDER}
        services, top = mounting("data", **entry)
        services["db"]["x-corral"] = {"security": "baseline"}
        with pytest.raises(Invalid) as refused:
            await rig.up(project(**services, top=top))
        (problem,) = refused.value.problems
        assert "not allowed at x-corral.security: baseline" in problem.message


async def test_a_password_is_in_no_row():
    async with Rig() as rig:
        options = {"type": "cifs", "o": "username=u,password=deep", "device": "//nas/share"}
        await rig.control.make(CreateVolume(name="data", options=options))
        assert "deep" not in rig.control.volumes().model_dump_json()
        with pytest.raises(Invalid, match="no --node"):
            await rig.control.make(CreateVolume(name="other", options=options, node="host1"))


async def test_a_name_that_was_made_by_hand_is_not_the_stacks():
    async with Rig() as rig:
        await rig.control.make(CreateNetwork(name="shared"))
        at = {"networks.default": Position("compose.yaml", 7, 3)}
        with pytest.raises(Invalid) as refused:
            await rig.up(project(web={}, top=OWN), origins=at)
        (problem,) = refused.value.problems
        assert "was made by hand" in problem.message
        assert problem.position == at["networks.default"]


async def test_a_store_that_was_lost_learns_again_what_is_nobodys():
    """Else `down -v` of the stack would take data that somebody else made."""
    async with Rig() as rig:
        await rig.control.make(CreateVolume(name="hers"))
        await rig.control.make(CreateVolume(name="share", options=NFS))
        await rig.control.make(CreateNetwork(name="shared"))
        await rig.control.make(content("key"))
        mounts = [
            {"type": "volume", "source": key, "target": f"/{key}"}
            for key in ("mine", "hers", "nfs")
        ]
        top = {
            **OUTSIDE,
            "volumes": {
                "mine": {"name": "app_mine"},
                "hers": {"name": "hers", "external": True},
                "nfs": {"name": "share", "external": True},
            },
            "secrets": {"key": {"name": "key", "external": True}},
        }
        ref = {"source": "key", "target": "/key"}
        await rig.up(project(web={"volumes": mounts, "secrets": [ref]}, top=top))
        await rig.deployed()
        (task,) = rig.live()
        helds = {"n1": await rig.nodes["n1"].agent.held()}
        lost = await Cluster.open(MemoryStore(), rig.clock)
        made = adopt(lost, helds, PlainSealer(), wall=0.0, found=rig.cluster.nodes)
        assert await made.draft.commit(lost._store)
        assert {v.name: (v.stack, v.node) for v in lost.volumes.values()} == {
            "app_mine": ("app", task.node),
            "hers": ("", task.node),
            "share": ("", ""),
        }
        assert lost.volumes["share"].options == NFS
        assert [(n.name, n.stack) for n in lost.networks.values()] == [("shared", "")]
        assert [(c.name, c.stack) for c in lost.contents.values()] == [("key", "")]


@pytest.mark.parametrize("guest", ["runs", "stopped", "gone", "has its own"])
async def test_down_v_leaves_the_volume_that_another_stack_has(guest):
    """Law: data that another stack means is not deleted; from then on it is nobody's."""
    async with Rig() as rig:
        services, top = mounting("shared")
        await rig.up(project(**services, top=top), stack="owner")
        await rig.deployed("owner")
        services, theirs = mounting("other" if guest == "has its own" else "shared")
        theirs["volumes"]["data"]["external"] = guest != "has its own"
        await rig.up(project(**services, top=theirs), stack="guest")
        await rig.deployed("guest")
        if guest == "stopped":
            await rig.control.stop("guest", 0)
            await rig.until(lambda: not rig.live(stack="guest"))
        elif guest == "gone":
            await gone(rig, "guest")
        await rig.control.remove("owner", volumes=True, timeout=0)
        await rig.until(lambda: "owner" not in rig.cluster.stacks)
        if guest in ("gone", "has its own"):
            assert rig.agents.removed == [("n1", "shared")]
            return
        assert rig.agents.removed == []
        assert rig.cluster.volumes["shared"].stack == ""
        assert len(rig.ready("db", "guest")) == (guest == "runs")
        await rig.control.remove("guest", volumes=True, timeout=0)
        await rig.until(lambda: "guest" not in rig.cluster.stacks)
        assert rig.agents.removed == [], "what was external to it is not its own now"
        await rig.control.drop("volume", "shared")
        await rig.until(lambda: "shared" not in rig.cluster.volumes)
        assert rig.agents.removed == [("n1", "shared")]


@pytest.mark.parametrize("restarted", [False, True])
async def test_an_own_network_that_the_file_calls_external_now_is_the_one_it_was(restarted):
    """Law: to say whose a network is takes neither its ports nor its networks from what runs."""

    def published(rig, node):
        services = rig.nodes[node].wanted.services.values()
        return [([p.published for p in s.ports], len(s.endpoints)) for s in services]

    web = {"ports": [{"target": 80, "published": "8080", "protocol": "tcp", "mode": "ingress"}]}
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=web, top=OWN))
        await rig.deployed()
        (network,) = rig.cluster.networks
        await rig.until(lambda: all(published(rig, n) == [([8080], 1)] for n in rig.nodes))
        (was,) = rig.live()
        await rig.up(project(web=web, top=OUTSIDE))
        await rig.deployed()
        if restarted:
            await rig.restart_controller()
        await asyncio.sleep(2 * REST)
        assert list(rig.cluster.networks) == [network]
        assert all(published(rig, n) == [([8080], 1)] for n in rig.nodes)
        (task,) = rig.live()
        assert list(task.addresses) == [network]
        assert all(network in rig.nodes[n].wanted.networks for n in rig.nodes)
        assert (task.id == was.id) or task.status.ready


@pytest.mark.parametrize("moved", [False, True])
async def test_what_is_carried_stays_on_the_network_that_the_file_calls_external_now(moved):
    async with Rig(nodes=2) as rig:
        await rig.up(project(web={}, db={}, top=OWN))
        await rig.deployed()
        (network,) = rig.cluster.networks
        (db,) = rig.live("db")
        await rig.up(project(web={"command": ["new"]}, db={}, top=OUTSIDE), services=("web",))
        await rig.deployed()
        assert [t.id for t in rig.live("db")] == [db.id]
        if moved:
            await rig.fake_of(db).crash()
            await rig.remove_node(db.node)
            await rig.until(lambda: [t for t in rig.ready("db") if t.node != db.node])
        await rig.until(lambda: rig.ready("web"))
        assert list(rig.cluster.networks) == [network]
        assert {n for t in rig.live() for n in t.addresses} == {network}


async def test_a_rollback_of_a_network_that_became_external_brings_back_what_ran():
    async with Rig() as rig:
        web = {"deploy": {"update_config": {"failure_action": "rollback"}}}
        await rig.up(project(web=web, top=OWN))
        await rig.deployed()
        (network,) = rig.cluster.networks
        rig.how["web:2"] = Behaviour(never_ready=True)
        await rig.up(project(web={**web, "image": "web:2"}, top=OUTSIDE))
        await rig.until(lambda: rig.release().state.value == "rolled_back", within=900)
        await rig.until(lambda: [t.release for t in rig.ready("web")] == [1])
        assert list(rig.cluster.networks) == [network]
        await rig.up(project(web=web, top=OUTSIDE))
        await rig.deployed()
