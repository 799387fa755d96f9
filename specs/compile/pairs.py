"""Services that share another one's namespaces: ``network_mode: service:X`` and its kin.

A task and its partner are a pair: on one node, the partner first, and whoever has no network of
its own cannot say what that should be like. Part of the compiler of stacks; the table of right
answers is tests/specs/test_pairs.py, ADR 0021 says what a pair is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from specs.compile.values import mapping

if TYPE_CHECKING:
    from specs.compile.verdicts import Verdicts

Json = dict[str, Any]

_PREFIX: Final = "service:"
_WHAT: Final = {"network_mode": "the network", "pid": "the processes", "ipc": "the memory"}
# Docker refuses these of a container in another one's network: they would change that.
_PARTNERS: Final = {
    "ports": "publish the port there: its processes and these share every port",
    "expose": "write it there",
    "hostname": "both have one host name: write it there",
    "dns": "write it there",
    "extra_hosts": "write it there",
    "links": "write it there",
    "external_links": "write it there",
    "mac_address": "leave it out",
}
_UNHEARD: Final = ("domainname", "dns_search", "dns_opt")


def partner_of(raw: Json) -> str:
    """Return the service whose namespaces a service shares; empty = of none."""
    return next((name for _, name in _shared(raw)), "")


def shares(raw: Json, key: str) -> bool:
    """Say whether ``key`` of a service names another one's namespace."""
    return str(raw.get(key) or "").startswith(_PREFIX)


def _shared(raw: Json) -> list[tuple[str, str]]:
    return [(key, str(raw[key]).removeprefix(_PREFIX)) for key in _WHAT if shares(raw, key)]


def of_the_node(services: Json, name: str) -> Json:
    """Return those keys of a service whose partner, or partner's partner, has the node's own."""
    found: Json = {}
    for key, _ in _shared(mapping(services[name])):
        seen, at = {name}, mapping(services[name])
        while shares(at, key) and (other := str(at[key]).removeprefix(_PREFIX)) not in seen:
            seen.add(other)
            at = mapping(services.get(other))
        if at.get(key) == "host":
            found[key] = "host"
    return found


def check(project: Json, verdicts: Verdicts) -> None:
    """Refuse pairs that cannot be, each at the key that says so."""
    services = mapping(project.get("services"))
    for name in services:
        _check(name, services, verdicts)


def _check(name: str, services: Json, verdicts: Verdicts) -> None:
    raw, path = mapping(services[name]), f"services.{name}"
    for key, what in _WHAT.items():
        word = str(raw.get(key) or "")
        if word.startswith("container:"):
            _of_container(f"{path}.{key}", word, services, verdicts)
        elif word.startswith(_PREFIX):
            _of_service(f"{path}.{key}", what, name, services, verdicts)
    named = _shared(raw)
    for key, other in named:
        if other != named[0][1]:
            verdicts.refuse(
                f"{path}.{key}",
                f"{named[0][0]} has {named[0][1]} as partner, and a service has one",
                f"share both of one of them: {key}: {_PREFIX}{named[0][1]}",
            )
    if shares(raw, "network_mode"):
        _network(path, raw, verdicts)


def _of_container(path: str, word: str, services: Json, verdicts: Verdicts) -> None:
    name = word.partition(":")[2]
    called = (s for s, raw in services.items() if mapping(raw).get("container_name") == name)
    meant = next(called, "NAME")
    verdicts.refuse(
        path,
        f"{word} names a container, and containers come and go on many machines",
        f"name the service, which has to be in this file: {_PREFIX}{meant}",
    )


def _of_service(path: str, what: str, name: str, services: Json, verdicts: Verdicts) -> None:
    key = path.rpartition(".")[2]
    other = str(services[name][key]).removeprefix(_PREFIX)
    if other == name:
        verdicts.refuse(path, f"{name} cannot share {what} of itself", "name another service")
    elif other not in services:
        return  # `up --no-deps`: it is there already; what no file has loading has refused
    elif key == "ipc" and not _lends_memory(services[other]):
        verdicts.refuse(
            path,
            f"{other} does not lend its memory",
            f"as for Docker, {other} needs ipc: shareable",
        )
    elif _edge(services[name], other).get("condition") == "service_completed_successfully":
        verdicts.refuse(
            path,
            f"{other} has no network any more when it has completed, and {name} waits for that",
            f"let it wait for less: depends_on: {{{other}: {{condition: service_healthy}}}}",
        )
    elif _is_global(services, name) and not _is_global(services, other):
        verdicts.refuse(
            path,
            f"{name} is to run on every node, and {other}, whose {what[4:]} it shares, is not",
            f"give {other} deploy.mode: global, too, or leave it out here",
        )
    elif _is_global(services, name) and _where(services, name) != _where(services, other):
        verdicts.refuse(
            path,
            f"{name} and {other} are to run on every node, but their constraints differ",
            "give both the same deploy.placement.constraints",
        )
    elif 0 < (most := _most_on_a_node(services, name)) < _beside_one(services, name, other):
        verdicts.refuse(
            path,
            f"{_beside_one(services, name, other)} of {name} share {what} of one {other},"
            f" so they are on its node, and max_replicas_per_node is {most}",
            f"give {other} as many replicas as {name}, or leave max_replicas_per_node out",
        )


def _lends_memory(raw: Json) -> bool:
    return raw.get("ipc") in ("shareable", "host") or shares(raw, "ipc")


def _edge(raw: Json, other: str) -> Json:
    return mapping(mapping(raw.get("depends_on")).get(other))


def _is_global(services: Json, name: str) -> bool:
    mode = mapping(mapping(services[name]).get("deploy")).get("mode")
    return mode in ("global", "global-job")


def _placement(services: Json, name: str) -> Json:
    return mapping(mapping(mapping(services[name]).get("deploy")).get("placement"))


def _where(services: Json, name: str) -> list[str]:
    return sorted(
        "".join(str(c).split()) for c in _placement(services, name).get("constraints") or ()
    )


def _most_on_a_node(services: Json, name: str) -> int:
    return _count(_placement(services, name).get("max_replicas_per_node"), 0)


def _beside_one(services: Json, name: str, other: str) -> int:
    """Return how many replicas of ``name`` at most have one of ``other`` as partner; 1 of none."""
    if _is_global(services, other):
        return 1  # as many as there are nodes
    mine, theirs = (
        _count(mapping(mapping(services[one]).get("deploy")).get("replicas"), 1)
        for one in (name, other)
    )
    return max(1, -(-mine // max(1, theirs)))


def _count(value: Any, default: int) -> int:
    return value if isinstance(value, int) else default


def _network(path: str, raw: Json, verdicts: Verdicts) -> None:
    other = str(raw["network_mode"]).removeprefix(_PREFIX)
    for key, hint in _PARTNERS.items():
        if raw.get(key):
            verdicts.refuse(
                f"{path}.{key}", f"the network is that of {other}, and so is `{key}`", hint
            )
    for key in _UNHEARD:
        if raw.get(key):
            verdicts.warn(
                f"{path}.{key}", f"the files of the network are those of {other}: set it there"
            )
    for sysctl in mapping(raw.get("sysctls")):
        if sysctl.startswith("net."):
            verdicts.refuse(
                f"{path}.sysctls.{sysctl}",
                f"the network is that of {other}, and so is what is set in it",
                f"set it for {other}",
            )
