"""``x-corral.schedule``: what it says, and what does not go with it.

Part of the compiler of stacks. A text is cron's five fields in UTC; a mapping says more. A
scheduled service has no tasks that stand by, so its number of replicas is 0, and nothing can wait
for it or be sent to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.compile import jobs
from specs.compile.schedule_words import KEYS, MISSED, OVERLAPS
from specs.compile.values import given, mapping, yes
from specs.kit.cron import Cron, NoZone, zone_of
from specs.schedule import MOST_KEPT, ScheduleSpec

if TYPE_CHECKING:
    from specs.compile.verdicts import Verdicts
    from specs.stack import StackSpec

Json = dict[str, Any]
_LOOKED_AT = 50  # due times between which the shortest span is looked for


def replicas(schedule: ScheduleSpec | None, written: object) -> int | None:
    """Return the number of tasks that stand by; None where the file does not say."""
    if schedule is not None:
        return 0
    return None if written is None else int(str(written))


def schedule(path: str, raw: Json, verdicts: Verdicts) -> ScheduleSpec | None:
    """Return the service's schedule; None where it has none, or a wrong one."""
    where = f"{path}.x-corral.schedule"
    value = mapping(raw.get("x-corral")).get("schedule")
    if value is None:
        return None
    written = f"{where}.cron"
    if isinstance(value, str):
        value, written = {"cron": value}, where
    if not isinstance(value, dict):
        verdicts.refuse(where, f"{value!r} is no schedule", 'write "0 3 * * *", or a mapping')
        return None
    _beside(path, raw, verdicts)
    verdicts.unknown_keys(value, where, KEYS)
    cron, zone = value.get("cron"), value.get("timezone") or "UTC"
    parsed = None
    try:
        parsed = Cron.parse(str(cron or ""))
    except ValueError as error:
        verdicts.refuse(written, str(error), "minute hour day month weekday: 0 3 * * *")
    try:
        found_zone = zone_of(str(zone))
    except NoZone as error:
        verdicts.refuse(f"{where}.timezone", str(error))
        return None
    if parsed is None:
        return None
    made = ScheduleSpec(
        cron=str(cron),
        timezone=str(zone),
        paused=yes(value.get("paused")),
        **given(
            jitter=verdicts.duration(value, f"{where}.jitter"),
            overlap=verdicts.word(value, f"{where}.overlap", OVERLAPS),
            missed=verdicts.word(value, f"{where}.missed", MISSED),
            missed_within=verdicts.duration(value, f"{where}.missed_within"),
            keep=verdicts.whole(value, f"{where}.keep", "iterations", MOST_KEPT),
            deadline=verdicts.duration(value, f"{where}.deadline") or None,
        ),
    )
    # Looking for it takes up to 0.1 s of what is seldom due: not for who has no jitter.
    if made.jitter and made.jitter >= (span := _shortest(parsed, found_zone)):
        verdicts.refuse(
            f"{where}.jitter",
            f"it is as long as the {span:g} s between two due times: one would overtake the other",
            "write a shorter one",
        )
    return made


def _shortest(cron: Cron, zone: Any) -> float:
    """Return the shortest span between some of its due times in a row."""
    at, shortest = 1_767_225_600.0, float("inf")  # 2026: any year does
    at = cron.after(at, zone)
    for _ in range(_LOOKED_AT):
        following = cron.after(at, zone)
        shortest, at = min(shortest, following - at), following
    return shortest


def _beside(path: str, raw: Json, verdicts: Verdicts) -> None:
    """Refuse what a scheduled service cannot have."""
    deploy = mapping(raw.get("deploy"))
    if deploy.get("mode") not in (None, "", "replicated"):
        verdicts.refuse(
            f"{path}.deploy.mode",
            "what runs by a schedule is one task at each due time",
            "leave mode out",
        )
    for key, count in (("scale", raw.get("scale")), ("deploy.replicas", deploy.get("replicas"))):
        if count not in (None, 1):
            verdicts.refuse(
                f"{path}.{key}",
                "what runs by a schedule is one task at each due time",
                "leave it out",
            )
    for key in ("update_config", "rollback_config"):
        if deploy.get(key):
            verdicts.refuse(
                f"{path}.deploy.{key}",
                f"what runs by a schedule has no `{key}`: the next iteration is as the file says",
                "leave it out",
            )
    extension = mapping(raw.get("x-corral"))
    for key in ("canary", "update", "keep_old", "depends_deadline", "max_concurrent"):
        if extension.get(key) is not None:
            verdicts.refuse(
                f"{path}.x-corral.{key}",
                f"`{key}` is of tasks that go on, and this runs by a schedule",
                "leave it out",
            )
    if raw.get("ports"):
        verdicts.refuse(
            f"{path}.ports",
            "what runs by a schedule has no endpoints, so nothing can be published",
            "leave ports out",
        )
    if yes(mapping(raw.get("x-corral")).get("exclusive")):
        verdicts.refuse(
            f"{path}.x-corral.exclusive",
            "an exclusive service is one that goes on",
            "leave it out; overlap: forbid has no two iterations at a time",
        )
    if raw.get("container_name"):
        verdicts.refuse(
            f"{path}.container_name",
            "each iteration has a name of its own",
            "leave it out; they are named STACK-SERVICE-NUMBER",
        )
    jobs.once_only(path, raw, "what", verdicts)


def check_edges(spec: StackSpec, verdicts: Verdicts) -> None:
    """Refuse to wait for, or to share with, what runs at some other time."""
    timed = {name for name, service in spec.services.items() if service.schedule is not None}
    for name, service in spec.services.items():
        for other in sorted(timed & service.depends_on.keys()):
            verdicts.refuse(
                f"services.{name}.depends_on.{other}",
                f"{other} runs by a schedule, so nothing can wait for it",
                "leave it out",
            )
        if service.task.partner in timed:
            verdicts.refuse(
                f"services.{name}",
                f"{service.task.partner} runs by a schedule, so it has no namespaces to share",
                "share those of a service that goes on",
            )
