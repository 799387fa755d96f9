"""Property: for random pairs of files on random clusters `up` does exactly what `plan` said.

The plan is bound (`planned_after`, `places`), as `up --plan` and `up --confirm` bind it. Told of
every replica: whether it is made, replaced, kept or removed, and on which node; of every service
the order of its start behind what gates it; of every image the digest.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from specs.states import TaskState
from tests.orchestrator.control.builders import CHECK, project
from tests.orchestrator.control.rig import Behaviour, Rig
from tests.orchestrator.control.test_forecast import did, said
from tests.virtual_time import in_virtual_time

EXAMPLES = 200
NAMES = ("a", "b", "c", "d")
CONDITIONS = ("service_started", "service_healthy")


@st.composite
def services(draw: Any, name: str) -> dict[str, Any]:
    """One service; those of the names before it are what it may depend on."""
    deploy: dict[str, Any] = {}
    replicas = draw(st.integers(0, 4))
    if draw(st.integers(0, 7)) == 0:
        deploy["mode"] = "global"
    else:
        deploy["replicas"] = replicas
    order = draw(st.sampled_from(("stop-first", "start-first")))
    parallelism = draw(st.integers(0, 2))
    deploy["update_config"] = {"order": order, "parallelism": parallelism, "monitor": "500ms"}
    if draw(st.integers(0, 4)) == 0:
        deploy["placement"] = {"max_replicas_per_node": 3}
    if draw(st.integers(0, 4)) == 0:
        deploy.setdefault("placement", {})["constraints"] = ["node.labels.disk == ssd"]
    if draw(st.booleans()):
        deploy["resources"] = {"reservations": {"cpus": draw(st.sampled_from(("0.25", "0.5")))}}
    found: dict[str, Any] = {
        "image": f"{name}:{draw(st.integers(1, 2))}",
        "environment": {"V": str(draw(st.integers(1, 2)))},
        "deploy": deploy,
        **CHECK,
    }
    if draw(st.integers(0, 3)) == 0 and deploy.get("mode") != "global":
        found["volumes"] = [{"type": "volume", "source": f"v{name}", "target": "/d"}]
    earlier = NAMES[: NAMES.index(name)]
    edges = {
        other: {"condition": draw(st.sampled_from(CONDITIONS)), "restart": draw(st.booleans())}
        for other in earlier
        if draw(st.integers(0, 2)) == 0
    }
    if edges:
        found["depends_on"] = edges
    return found


@st.composite
def files(draw: Any) -> dict[str, Any]:
    names = [name for name in NAMES if draw(st.integers(0, 4)) or name == "a"]
    found = {name: draw(services(name)) for name in names}
    for service in found.values():
        edges = {n: e for n, e in service.pop("depends_on", {}).items() if n in found}
        edges = {n: e for n, e in edges.items() if _runs(found[n])}
        if edges:
            service["depends_on"] = edges
    volumes = {f"v{name}": {"name": f"app_v{name}"} for name in found if "volumes" in found[name]}
    return project(**found, top={"volumes": volumes} if volumes else {})


def _runs(service: dict[str, Any]) -> bool:
    deploy = service["deploy"]
    return bool(deploy.get("replicas") or deploy.get("mode") == "global")


nodes = st.integers(1, 4)
happenings = st.lists(st.sampled_from(("scale", "drain", "none")), max_size=1)


@pytest.mark.timeout(600)  # 35 s of one processor, which others want, too
@given(first=files(), second=files(), count=nodes, between=happenings, orphans=st.booleans())
@settings(
    phases=[Phase.explicit, Phase.generate],
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
def test_up_does_what_plan_said(first, second, count, between, orphans):
    in_virtual_time(_compared(first, second, count, between, orphans=orphans))


async def _compared(
    first: dict[str, Any],
    second: dict[str, Any],
    count: int,
    between: list[str],
    *,
    orphans: bool,
) -> None:
    async with Rig(nodes=count) as rig:
        for name in NAMES:
            rig.how[name] = Behaviour(healthy=0.2)
        for number in range(1, count + 1, 2):
            node = rig.cluster.nodes[f"n{number}"]
            await rig.put_node(node.model_copy(update={"labels": {"disk": "ssd"}}))
        await rig.until(lambda: rig.cluster.nodes["n1"].labels)
        if not await _held(rig, first):
            return
        await _happens(rig, between, count)
        await _held(rig, second, remove_orphans=orphans)


async def _happens(rig: Rig, between: list[str], count: int) -> None:
    if "drain" in between and count > 1:
        node = rig.cluster.nodes[f"n{count}"]
        await rig.put_node(node.model_copy(update={"availability": "pause"}))
        await rig.until(lambda: rig.cluster.nodes[node.id].availability == "pause")
    spec = rig.cluster.parts[rig.release().spec]
    if "scale" in between and spec.services["a"].mode != "global":
        await rig.control.scale("app", {"a": 2})
        await rig.until(lambda: len(rig.ready("a")) == 2 or _waits(rig))


def _waits(rig: Rig) -> bool:
    return any(task.state is TaskState.PENDING for task in rig.tasks())


async def _held(rig: Rig, file: dict[str, Any], **more: Any) -> bool:
    """Plan, do it as planned, and compare; False: it was said not to come to its end."""
    plan = await rig.plan(file, **more)
    before = [task for task in rig.tasks() if task.live]
    bound = {"planned_after": plan.release, "places": plan.places}
    started: list[str] = []
    rig.watchers.clear()
    history = len(rig.history)
    await rig.up(file, **bound, **more)
    end = await rig.end_of(within=4000)
    if plan.fails:
        assert not end.ok, f"law: what is said not to come to its end does not: {plan.fails}"
        return False
    assert end.ok, f"{end.state}: {end.message}, and the plan was {plan.services}"
    await rig.until(lambda: all(t.desired != "removed" for t in rig.tasks()), within=120)
    if plan.unchanged:
        assert [t.id for t in rig.tasks() if t.live] == [t.id for t in before]
        return True
    assert said(rig, plan) == did(rig, before)
    digests = {t.service: t.status.image_digest for t in rig.tasks() if t.live}
    images = {name: image.image for image in plan.images for name in image.services}
    for name, image in images.items():
        if digests.get(name):
            assert digests[name] == f"sha256:{image}"
    for line in rig.history[history:]:
        name, _, state = line.rpartition(" ")
        service = name.split("-")[1]
        if state == "running" and service not in started:
            started.append(service)
    places = {name: at for at, names in enumerate(plan.order) for name in names}
    gated = {s.name: s.after for s in plan.services if s.after}
    for name, waits in gated.items():
        for other in (w.removesuffix(" to be healthy") for w in waits if w.endswith("healthy")):
            if name in started and other in started and places.get(other, 0) < places.get(name, 0):
                assert started.index(other) < started.index(name), (started, plan.order)
    return True
