"""The security levels: what ``x-corral.security`` allows a service to ask for, and what it adds.

``default`` is Docker's. ``baseline`` takes what leads to the node: its name and what it forbids
are those of Kubernetes' Pod Security Standards, what it grants is less than Docker does.
``restricted`` leaves nothing that a program of its own user could not do. A stack's level holds for
its services; a service may name its own. What a level forbids is refused where it was written; what
it changes by itself ends in the fields of the TaskSpec, and what only the node can see (the image's
user) or make (capabilities, filter) is the bundle's, by ``TaskSpec.security``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from specs.compile.values import mapping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from specs.compile.verdicts import Verdicts

Json = dict[str, Any]
LEVELS: Final = ("default", "baseline", "restricted")
PIDS: Final = 2048  # processes of a container whose file sets no limit, at both levels

_ADDABLE: Final = {
    # Docker's own but NET_RAW: with a socket of any kind others' packets can be forged.
    "baseline": frozenset(
        {
            *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
            *("NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
        }
    ),
    "restricted": frozenset({"NET_BIND_SERVICE"}),
}
_SYSCTLS: Final = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)
_OFF: Final = frozenset({"seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"})


def check(path: str, raw: Json, level: str, verdicts: Verdicts) -> None:
    """Refuse what a service at ``path`` asks for and its level forbids."""
    if level == "default":
        return
    found = [*_baseline(raw, level)]
    if level == "restricted":
        found += _restricted(raw)
    for key, what, hint in found:
        verdicts.refuse(
            f"{path}.{key}", f"{what} is not allowed at x-corral.security: {level}", hint
        )


Found = tuple[str, str, str]  # key, what it is, hint


def _baseline(raw: Json, level: str) -> Iterator[Found]:
    if raw.get("privileged"):
        yield "privileged", "a privileged container", "name the capabilities it needs: cap_add"
    for key in ("network_mode", "pid", "ipc", "userns_mode", "cgroup", "uts"):
        if raw.get(key) == "host":
            yield key, f"{key}: host", "leave it out: the container gets its own"
    for index, option in enumerate(raw.get("security_opt") or ()):
        if str(option).replace(":", "=", 1) in _OFF:
            yield f"security_opt[{index}]", f"{option}", "leave it out"
    yield from _of_the_kernel(raw, level)
    yield from _of_the_node(raw)


def _of_the_kernel(raw: Json, level: str) -> Iterator[Found]:
    for index, name in enumerate(raw.get("cap_add") or ()):
        word = str(name).upper().removeprefix("CAP_")
        if word not in _ADDABLE[level]:
            known = ", ".join(sorted(_ADDABLE[level]))
            yield f"cap_add[{index}]", f"the capability {name}", f"allowed here: {known}"
    for name in mapping(raw.get("sysctls")):
        if name not in _SYSCTLS:
            known = ", ".join(sorted(_SYSCTLS))
            yield f"sysctls.{name}", f"the sysctl {name}", f"allowed here: {known}"


def _of_the_node(raw: Json) -> Iterator[Found]:
    for index, _ in enumerate(raw.get("devices") or ()):
        yield f"devices[{index}]", "a device of the node", "leave it out, or the level"
    for index, mount in enumerate(raw.get("volumes") or ()):
        if mapping(mount).get("type") == "bind":
            hint = "use a named volume; configs and secrets bring files along"
            yield f"volumes[{index}]", f"a path of the node ({mount.get('source')})", hint
    for index, port in enumerate(raw.get("ports") or ()):
        if mapping(port).get("mode") == "host":
            hint = "leave mode: host out: every node then takes the port"
            yield f"ports[{index}]", "a port of one node", hint


def _restricted(raw: Json) -> Iterator[Found]:
    who = str(raw.get("user") or "").partition(":")[0]
    if who == "root" or (who.isascii() and who.isdigit() and int(who) == 0):
        yield "user", "root", "name another user; its number is best"
    if raw.get("read_only") is False:
        yield "read_only", "a root that can be written", "mount a volume or a tmpfs where it writes"
    for index, option in enumerate(raw.get("security_opt") or ()):
        if str(option).replace(":", "=", 1) == "no-new-privileges=false":
            yield f"security_opt[{index}]", f"{option}", "leave it out"


def applied(fields: Json, level: str, raw: Json) -> Json:
    """Return a TaskSpec's fields with what the level changes by itself."""
    if level == "default":
        return fields
    options = {str(option).replace(":", "=", 1) for option in raw.get("security_opt") or ()}
    limits = fields["resources"].limits
    if limits.pids is None:
        limits = limits.model_copy(update={"pids": PIDS})
    return {
        **fields,
        "security": level,
        "resources": fields["resources"].model_copy(update={"limits": limits}),
        "no_new_privileges": "no-new-privileges=false" not in options,
        "read_only": fields["read_only"] or level == "restricted",
    }
