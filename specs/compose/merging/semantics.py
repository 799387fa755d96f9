"""Defaults and the checks a schema cannot express, on a canonical tree.

Runs once per set of files (the project's own, and each include), before paths are
resolved: what is missing but implied is filled in, what contradicts itself is
reported. Changes the tree in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.compose.merging.shortforms import is_ip
from specs.compose.reading.tree import Map, Seq, child, mark_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from specs.findings import Findings


def set_defaults(tree: Map) -> None:
    """Fill in build context, secret targets, port protocol and mode, device count, host paths."""
    for _, service in services(tree):
        build = service.get("build")
        if isinstance(build, Map):
            build.setdefault("context", ".")
        for secret in _maps(service.get("secrets")):
            secret.setdefault("target", f"/run/secrets/{secret.get('source', '')}")
        for port in _maps(service.get("ports")):
            port.setdefault("protocol", "tcp")
            port.setdefault("mode", "ingress")
        for _, device in _device_requests(service, ""):
            if "count" not in device and "device_ids" not in device:
                device["count"] = "all"
        for mount in _maps(service.get("volumes")):
            bind = mount.get("bind")
            if isinstance(bind, Map):
                bind.setdefault("create_host_path", True)


def check(tree: Map, findings: Findings) -> None:
    """Report contradictions: external with more, several sources, bad addresses, count with ids."""
    _volumes(tree, findings)
    _sources(tree, "configs", ("file", "environment", "content"), findings)
    _sources(tree, "secrets", ("file", "environment"), findings)
    for name, service in services(tree):
        path = f"services.{name}"
        _addresses(service, path, findings)
        for at, device in _device_requests(service, path):
            if "count" in device and "device_ids" in device:
                findings.error(
                    "count and device_ids exclude each other",
                    code="conflict",
                    path=at,
                    mark=mark_of(device, "device_ids"),
                    hint="keep one of them",
                )
        _watches(service, path, findings)


def services(tree: Map) -> Iterator[tuple[str, Map]]:
    """Yield name and mapping of every service that is one."""
    section = tree.get("services")
    for name, service in section.items() if isinstance(section, Map) else ():
        if isinstance(service, Map):
            yield name, service


def _maps(value: Any) -> Iterator[Map]:
    for item in value if isinstance(value, Seq) else ():
        if isinstance(item, Map):
            yield item


def _device_requests(service: Map, path: str) -> Iterator[tuple[str, Map]]:
    deploy = service.get("deploy")
    found = deploy
    for key in ("resources", "reservations", "devices"):
        found = found.get(key) if isinstance(found, Map) else None
    for index, device in enumerate(_maps(found)):
        yield f"{path}.deploy.resources.reservations.devices[{index}]", device
    for index, device in enumerate(_maps(service.get("gpus"))):
        yield f"{path}.gpus[{index}]", device


def _volumes(tree: Map, findings: Findings) -> None:
    section = tree.get("volumes")
    for name, volume in section.items() if isinstance(section, Map) else ():
        if not isinstance(volume, Map) or volume.get("external") is not True:
            continue
        for key in volume:
            if key not in ("name", "external") and not key.startswith("x-"):
                findings.error(
                    f"an external volume cannot have {key!r}",
                    code="conflict",
                    path=f"volumes.{name}",
                    mark=mark_of(volume, key),
                    at_key=True,
                    hint=f"remove {key}: it belongs to whoever created the volume",
                )


def _sources(tree: Map, section: str, keys: tuple[str, ...], findings: Findings) -> None:
    entries = tree.get(section)
    for name, entry in entries.items() if isinstance(entries, Map) else ():
        path = f"{section}.{name}"
        if not isinstance(entry, Map):
            continue
        given = [key for key in keys if key in entry]
        if len(given) > 1:
            findings.error(
                f"{' and '.join(given)} exclude each other",
                code="conflict",
                path=path,
                mark=mark_of(entry, given[1]),
                at_key=True,
                hint="keep one of them",
            )
        elif not any(
            key in entry or f"{path}.{key}" in findings.damaged
            for key in (*keys, "external", "driver")
        ):
            findings.error(
                f"no source: one of {', '.join(keys)} must be set",
                code="missing-key",
                path=path,
                mark=mark_of(entries, name),
                at_key=True,
                hint="add file: PATH, or external: true",
            )


def _addresses(service: Map, path: str, findings: Findings) -> None:
    ports = service.get("ports")
    for index, port in enumerate(ports if isinstance(ports, Seq) else ()):
        address = port.get("host_ip") if isinstance(port, Map) else None
        if isinstance(address, str) and not is_ip(address):
            findings.error(
                f"{address!r} is not an IP address",
                code="bad-port",
                path=f"{path}.ports[{index}].host_ip",
                mark=mark_of(port, "host_ip"),
            )


def _watches(service: Map, path: str, findings: Findings) -> None:
    develop = service.get("develop")
    watches = develop.get("watch") if isinstance(develop, Map) else None
    for index, watch in enumerate(_maps(watches)):
        if watch.get("path") == "":
            findings.error(
                "the path cannot be empty",
                code="bad-value",
                path=f"{child(f'{path}.develop.watch', index)}.path",
                mark=mark_of(watch, "path"),
            )
