"""``x-corral`` keys that say how a service is updated: canary, update, keep_old.

Part of the compiler of stacks. Both ways run the new tasks beside the old ones; what cannot be
there twice is refused where it is written, for nothing of it would come before an update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.compile.jobs import is_job
from specs.compile.values import duration_seconds, mapping, number, yes
from specs.shares import is_shared
from specs.stack import Canary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from specs.compile.verdicts import Verdicts

Json = dict[str, Any]
_PROMOTE = "write manual, `after 10m` or `healthy-for 10m`"
_WAYS = {"after": "after", "healthy-for": "healthy"}


def strategy(path: str, raw: Json, verdicts: Verdicts) -> Json:
    """Return what the service at ``path`` says of it, by the fields of UpdateConfig."""
    extension = mapping(raw.get("x-corral"))
    found: Json = {}
    way = extension.get("update")
    if way not in (None, "", "rolling", "blue-green"):
        verdicts.refuse(f"{path}.x-corral.update", f"{way!r} is not known here", "write blue-green")
    if way == "blue-green":
        found["blue_green"] = True
    keep = verdicts.duration(extension, f"{path}.x-corral.keep_old")
    if keep is not None:
        found["keep_old"] = keep
        if way != "blue-green":
            verdicts.refuse(
                f"{path}.x-corral.keep_old",
                "old tasks are kept by a blue-green update only",
                "write `update: blue-green` beside it",
            )
    if extension.get("canary") is not None:
        if way == "blue-green":
            verdicts.refuse(
                f"{path}.x-corral.canary",
                "a blue-green update replaces all tasks at once: none of them goes first",
                "leave out canary, or update",
            )
        found["canary"] = _canary(f"{path}.x-corral.canary", extension["canary"], verdicts)
        if found["canary"].weight and mapping(raw.get("deploy")).get("endpoint_mode") == "dnsrr":
            verdicts.refuse(
                f"{path}.x-corral.canary.weight",
                "with endpoint_mode dnsrr clients choose a task themselves: none has a weight",
                "leave out endpoint_mode, or weight",
            )
    key = "update" if way == "blue-green" else "canary"
    if found.keys() & {"blue_green", "canary"}:
        what = "a blue-green update runs" if way == "blue-green" else "a canary runs"
        for where, why, hint in _single(path, raw, verdicts):
            verdicts.refuse(
                where,
                f"{what} new tasks beside the old ones, and {why}",
                f"{hint}, or leave out {path}.x-corral.{key}",
            )
    return found


def depends_deadlines(path: str, raw: Json, verdicts: Verdicts) -> dict[str, float]:
    """Return how long the service at ``path`` waits for each that it depends on, if it says so."""
    value = mapping(raw.get("x-corral")).get("depends_deadline")
    here = f"{path}.x-corral.depends_deadline"
    others = mapping(raw.get("depends_on"))
    if value in (None, ""):
        return {}
    if not others:
        verdicts.refuse(here, "the service depends on nothing", "leave it out, or add depends_on")
        return {}
    single = not isinstance(value, dict)
    found = {}
    for name, written in (dict.fromkeys(others, value) if single else value).items():
        where = here if single else f"{here}.{name}"
        seconds = duration_seconds(written)
        if name not in others:
            known = ", ".join(sorted(others))
            verdicts.refuse(where, f"it does not depend on {name}", f"it depends on {known}")
        elif not seconds:
            verdicts.refuse(where, f"{written!r} is not a duration", "write e.g. 30s or 2m")
            if single:
                break
        else:
            found[name] = seconds
    return found


def _canary(path: str, value: Any, verdicts: Verdicts) -> Canary:
    if not isinstance(value, dict):
        verdicts.refuse(path, f"{value!r} is no canary", "write {replicas: 1, promote: manual}")
        return Canary()
    verdicts.unknown_keys(value, path, ("promote", "replicas", "weight"))
    count = number(value.get("replicas", 1))
    if not count:
        verdicts.refuse(
            f"{path}.replicas", f"{value.get('replicas')!r} is no count", "write 1 or more"
        )
        count = 1
    weight = _weight(path, value.get("weight"), verdicts)
    found = {"replicas": count, "weight": weight}
    words = str(value.get("promote") or "manual").split()
    if words == ["manual"]:
        return Canary.model_validate(found)
    seconds = duration_seconds(words[1]) if len(words) == 2 else None
    if words[0] not in _WAYS or seconds is None:
        verdicts.refuse(f"{path}.promote", f"{value.get('promote')!r} says no time", _PROMOTE)
        return Canary.model_validate(found)
    return Canary.model_validate({**found, "promote": _WAYS[words[0]], "seconds": seconds})


def _weight(path: str, value: Any, verdicts: Verdicts) -> int:
    """Return the percent of new connections; 0 where nothing is said of it."""
    if value is None:
        return 0
    percent = number(str(value).removesuffix("%").strip())
    if percent is None or not 0 < percent < 100:
        verdicts.refuse(f"{path}.weight", f"{value!r} is no share", "write 1% to 99%")
        return 0
    return percent


def _single(path: str, raw: Json, verdicts: Verdicts) -> Iterator[tuple[str, str, str]]:
    """Yield what there can be only one of in each slot: where, why, and what to write."""
    name = path.rpartition(".")[2]
    services = mapping(verdicts.project.get("services"))
    if is_job(mapping(raw.get("deploy")).get("mode")):
        yield f"{path}.deploy.mode", "a changed job begins anew, at once", "leave mode out"
    if yes(mapping(raw.get("x-corral")).get("exclusive")):
        yield f"{path}.x-corral.exclusive", "of an exclusive service one copy runs", "leave it out"
    for index, port in enumerate(raw.get("ports") or []):
        if isinstance(port, dict) and port.get("mode") == "host" and port.get("published"):
            number_ = port["published"]
            yield (
                f"{path}.ports[{index}]",
                f"port {number_} of a host is had once",
                "leave out `mode: host`: every node then answers on it for all tasks",
            )
    for key, options in mapping(raw.get("networks")).items():
        if mapping(options).get("ipv4_address"):
            yield (
                f"{path}.networks.{key}.ipv4_address",
                "a fixed address is had once",
                "leave it out: others find the service by its name",
            )
    if raw.get("network_mode") == "host":
        yield f"{path}.network_mode", "they would listen on the same ports", "publish ports"
    for key in ("network_mode", "pid", "ipc"):
        if str(raw.get(key) or "").startswith("service:"):
            yield f"{path}.{key}", "a task that shares another's goes with that one", "leave it out"
        for other, its in services.items():
            if mapping(its).get(key) == f"service:{name}":
                where = f"services.{other}.{key}"
                yield where, f"{other} shares what each task of {name} has", "leave it out"
    yield from _written(path, raw, verdicts)


def _written(path: str, raw: Json, verdicts: Verdicts) -> Iterator[tuple[str, str, str]]:
    """Yield the data that one task alone writes; several replicas write one volume already."""
    deploy = mapping(raw.get("deploy"))
    replicas = raw.get("scale") if raw.get("scale") is not None else deploy.get("replicas")
    several = (number(replicas) or 1) > 1
    volumes = mapping(verdicts.project.get("volumes"))
    for index, mount in enumerate(raw.get("volumes") or []):
        if not isinstance(mount, dict) or mount.get("read_only"):
            continue
        kind, source = mount.get("type"), str(mount.get("source") or "")
        declared = mapping(volumes.get(source))
        per_slot = yes(mapping(declared.get("x-corral")).get("per_slot"))
        shared = is_shared({k: str(v) for k, v in mapping(declared.get("driver_opts")).items()})
        if kind == "volume" and source and not shared and (per_slot or not several):
            yield (
                f"{path}.volumes[{index}]",
                f"volume {source} would have two writers",
                "write read_only: true where it only reads",
            )
        elif kind == "bind" and not several:
            yield (
                f"{path}.volumes[{index}]",
                f"{source} would have two writers",
                "write read_only: true where it only reads",
            )
