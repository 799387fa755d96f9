"""``x-corral.autoscale``: what it says, and what does not go with it. Part of the compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from specs.autoscale import AutoscaleSpec
from specs.bounds import MOST_TASKS
from specs.compile import jobs, schedule_words
from specs.compile.values import given, mapping, yes

if TYPE_CHECKING:
    from specs.compile.verdicts import Verdicts
    from specs.stack import Resources

Json = dict[str, Any]
_MOST_PERCENT: Final = 1000.0


def autoscale(
    path: str, raw: Json, resources: Resources, verdicts: Verdicts
) -> AutoscaleSpec | None:
    """Return how the service is scaled by itself; None where it is not, or that is wrong."""
    where = f"{path}.x-corral.autoscale"
    value = mapping(raw.get("x-corral")).get("autoscale")
    if value is None:
        return None
    if not isinstance(value, dict):
        verdicts.refuse(where, f"{value!r} says too little", "write {min: 2, max: 10, cpu: 70%}")
        return None
    verdicts.unknown_keys(value, where, schedule_words.AUTOSCALE["properties"])
    _beside(path, raw, verdicts)
    least = verdicts.whole(value, f"{where}.min", "tasks", MOST_TASKS) or 1
    most = verdicts.whole(value, f"{where}.max", "tasks", MOST_TASKS)
    cpu = _percent(where, value, "cpu", verdicts)
    memory = _percent(where, value, "memory", verdicts)
    if "max" not in value:
        verdicts.refuse(where, "it has no `max`", "write how many tasks there may be at most")
    elif most is not None and most < least:
        verdicts.refuse(f"{where}.max", f"{most} is less than min, {least}", "write more")
    if not {"cpu", "memory"} & value.keys():
        verdicts.refuse(
            where, "nothing says what it goes by", "write cpu: 70%, memory: 80% or both"
        )
    if memory is not None and not (resources.limits.memory or resources.reservations.memory):
        verdicts.refuse(
            f"{where}.memory",
            "of what is not said: the service has neither a memory limit nor a reservation",
            "write mem_limit, or deploy.resources.reservations.memory",
        )
    if most is None:
        return None
    return AutoscaleSpec(
        least=least,
        most=most,
        cpu=cpu,
        memory=memory,
        **given(
            cooldown=verdicts.duration(value, f"{where}.cooldown"),
            hold=verdicts.duration(value, f"{where}.hold"),
        ),
    )


def _percent(where: str, value: Json, key: str, verdicts: Verdicts) -> float | None:
    """Return the fraction that ``70%`` or 70 means."""
    written = value.get(key)
    if written is None:
        return None
    text = str(written).strip().removesuffix("%").strip()
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if isinstance(written, bool) or not 0 < found <= _MOST_PERCENT:
        verdicts.refuse(f"{where}.{key}", f"{written!r} is no share", "write e.g. 70%")
        return None
    return found / 100


def _beside(path: str, raw: Json, verdicts: Verdicts) -> None:
    """Refuse it for what has no number of tasks, or one task only."""
    mode = mapping(raw.get("deploy")).get("mode")
    where = f"{path}.x-corral.autoscale"
    if mode not in (None, "", "replicated"):
        what = "a job ends" if jobs.is_job(mode) else "it has a task on every node"
        verdicts.refuse(
            where, f"mode {mode} has no number that follows a load: {what}", "leave it out"
        )
    if schedule_words.has_one(raw):
        verdicts.refuse(where, "nothing of it stands by: it runs by a schedule", "leave one out")
    if yes(mapping(raw.get("x-corral")).get("exclusive")):
        verdicts.refuse(where, "an exclusive service has one copy", "leave one of them out")
    if raw.get("container_name"):
        verdicts.refuse(
            f"{path}.container_name", "a name is for one container only", "leave it out"
        )
