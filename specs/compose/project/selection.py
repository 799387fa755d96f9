"""Profiles, services named on the command line, and pruning what nobody uses.

Works on the canonical model; pure. Names may be patterns (``web*``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from specs.compose.merging.validate import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from specs.findings import Findings

Services = dict[str, Any]


def has_profile(service: dict[str, Any], active: Iterable[str]) -> bool:
    """Return whether a service runs with these profiles active."""
    wanted = service.get("profiles")
    return not wanted or any(name == "*" or name in wanted for name in active)


def by_profile(services: Services, active: Sequence[str]) -> tuple[Services, Services]:
    """Return the enabled and the disabled services."""
    enabled: Services = {}
    disabled: Services = {}
    for name, service in services.items():
        (enabled if has_profile(service, active) else disabled)[name] = service
    return enabled, disabled


def select(
    enabled: Services,
    disabled: Services,
    names: Sequence[str],
    profiles: Sequence[str],
    findings: Findings,
) -> tuple[Services, Services]:
    """Return the named services with all they depend on, and the rest.

    Naming a service activates its profiles. Dependencies nobody can give are left
    out of ``depends_on`` when they are not required.
    """
    if not names:
        return enabled, disabled
    active = list(profiles)
    for name in names:
        if name not in enabled:
            active.extend(disabled.get(name, {}).get("profiles", ()))
    enabled, disabled = by_profile({**enabled, **disabled}, active)
    chosen: set[str] = set()
    _collect(enabled, disabled, dict.fromkeys(names, True), chosen, findings)
    kept: Services = {}
    rest = dict(disabled)
    for name, service in enabled.items():
        if name not in chosen:
            rest[name] = service
            continue
        depends = service.get("depends_on")
        if depends:
            depends = {target: how for target, how in depends.items() if target in chosen}
            service = {**service, "depends_on": depends}  # noqa: PLW2901 - the model stays as it was
            if not depends:
                del service["depends_on"]
        kept[name] = service
    return kept, rest


def _collect(
    enabled: Services,
    disabled: Services,
    wanted: dict[str, bool],
    chosen: set[str],
    findings: Findings,
) -> None:
    queue = list(wanted.items())
    while queue:
        name, required = queue.pop()
        matches = [name] if name in enabled else _matching(name, enabled)
        if not matches and required:
            what = "is not active: its profile is off" if name in disabled else "is not defined"
            findings.error(
                f"no such service: {name} {what}",
                code="no-such-service",
                hint=did_you_mean(name, tuple(enabled), cutoff=0.6),
            )
        for match in matches:
            if match not in chosen:
                chosen.add(match)
                queue.extend(
                    (target, how.get("required", True))
                    for target, how in enabled[match].get("depends_on", {}).items()
                )


def _matching(pattern: str, services: Services) -> list[str]:
    if not any(char in pattern for char in "*?["):
        return []
    text = re.escape(pattern).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    text = re.sub(r"\\\[(\^?[^\]]+)\\\]", lambda found: f"[{found[1].replace(chr(92), '')}]", text)
    try:
        matcher = re.compile(rf"(?:{text})\Z")
    except re.error:
        return []
    return [name for name in services if matcher.match(name)]


def with_dependencies(services: Services, names: Iterable[str]) -> set[str]:
    """Return those of the names that there are, and all that they depend on."""
    chosen = {name for name in names if name in services}
    todo = list(chosen)
    while todo:
        wanted = (services[todo.pop()] or {}).get("depends_on") or ()
        fresh = {name for name in wanted if name in services} - chosen
        chosen |= fresh
        todo += fresh
    return chosen


def narrowed(
    model: dict[str, Any], names: Iterable[str], *, dependencies: bool = True
) -> dict[str, Any]:
    """Return a copy of the model with only the named services, what they depend on and use."""
    services: Services = model.get("services") or {}
    chosen = with_dependencies(services, names) if dependencies else set(names)
    found = {**model, "services": {n: s for n, s in services.items() if n in chosen}}
    prune(found)
    return found


def prune(model: dict[str, Any]) -> None:
    """Drop the networks, volumes, secrets, configs and models no service of the model uses."""
    used: dict[str, set[str]] = {
        section: set() for section in ("networks", "volumes", "secrets", "configs", "models")
    }
    for service in model["services"].values():
        used["networks"].update(service.get("networks") or ())
        used["models"].update(service.get("models") or ())
        used["volumes"].update(
            mount.get("source", "")
            for mount in service.get("volumes", ())
            if isinstance(mount, dict) and mount.get("type") == "volume"
        )
        for section in ("secrets", "configs"):
            used[section].update(item.get("source", "") for item in service.get(section, ()))
        build = service.get("build")
        for item in build.get("secrets", ()) if isinstance(build, dict) else ():
            used["secrets"].add(item.get("source", ""))
    for section, names in used.items():
        kept = {name: value for name, value in model.get(section, {}).items() if name in names}
        if kept:
            model[section] = kept
        else:
            model.pop(section, None)
