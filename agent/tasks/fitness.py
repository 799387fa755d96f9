"""Is everything that a task's spec brings a name where it ends? Pure.

The controller refuses such values with their place in the user's file (specs.compile.naming); here
they are looked at once more before anything is made of them, because a controller one release
older did not, and because this node is where they would do harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import Refusal
from specs import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from specs.stack import TaskSpec


def check(spec: TaskSpec) -> None:
    """Raise Refusal with the first value that does not fit, by its key."""
    for key, why in _faults(spec):
        if why:
            raise Refusal(f"{key}: {why}")


def _faults(spec: TaskSpec) -> Iterator[tuple[str, str]]:
    # A host name that is too long was cut by earlier versions, and runs.
    for key, value, fault in (
        ("hostname", spec.hostname, names.host_like_fault),
        ("domainname", spec.domainname, names.host_like_fault),
        ("user", spec.user, names.user_fault),
        ("working_dir", spec.working_dir, names.working_dir_fault),
    ):
        if value:
            yield key, fault(value)
    yield from (("group_add", names.group_fault(group)) for group in spec.group_add)
    yield from (("dns", names.address_fault(server)) for server in spec.dns)
    yield from (("dns_search", names.search_fault(domain)) for domain in spec.dns_search)
    yield from (("dns_opt", names.OPTION.fault(option)) for option in spec.dns_opt)
    yield from (("extra_hosts", names.extra_host_fault(*pair)) for pair in spec.extra_hosts)
    for key in spec.annotations:
        yield "annotations", names.annotation_fault(key)
    for key in spec.sysctls:
        yield "sysctls", names.SYSCTL.fault(key)
    yield from (("environment", names.line_fault(name)) for name in spec.environment)
    for port in spec.ports:
        if port.host_ip:
            yield "ports", names.address_fault(port.host_ip)
    yield from _paths(spec)
    yield from (("a text of the service", names.text_fault(text)) for text in _texts(spec))


def _paths(spec: TaskSpec) -> Iterator[tuple[str, str]]:
    for mount in spec.mounts:
        yield "volumes", names.target_fault(mount.target)
        yield "volumes", names.line_fault(mount.source or "") or names.line_fault(mount.subpath)
    for file in (*spec.secrets, *spec.configs):
        yield "secrets and configs", names.target_fault(file.target)
    for device in spec.devices:
        yield "devices", names.line_fault(device.source) or names.target_fault(device.target)


def _texts(spec: TaskSpec) -> Iterable[str]:
    return (
        *(spec.entrypoint or ()),
        *(spec.command or ()),
        *spec.environment.values(),
        *spec.annotations.values(),
        *spec.sysctls.values(),
        *(spec.healthcheck.test if spec.healthcheck is not None else ()),
    )
