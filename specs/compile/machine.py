"""What a container shares with its machine, and what of the machine it gets.

Namespaces, processors, swap, platform, runtime. Part of the compiler of services;
:mod:`specs.compile.service` calls it, the agent's ``runtime/bundle.py`` does what it says.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from specs import kernel
from specs.compile import pairs
from specs.compile.values import mapping, number, size_bytes

if TYPE_CHECKING:
    from specs.compile.verdicts import Verdicts

Json = dict[str, Any]

_SHARED: Final = {
    "pid": ("host",),
    "ipc": ("host", "none", "shareable"),
    "uts": ("host",),
}
_OWN: Final = {"pid": ("private",), "ipc": ("private",), "uts": ("private",)}
_CPUS: Final = re.compile(r"[0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*")
# Runtimes of which each starts the same container: the node has one of them.
_RUNTIMES: Final = frozenset({"runc", "crun", "io.containerd.runc.v2", "oci", "default"})
_ARCHITECTURES: Final = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm"}


def shared(path: str, raw: Json, deploy: Json, verdicts: Verdicts) -> Json:
    """Return the fields of a TaskSpec that are about the machine; refuse what cannot be."""
    found: Json = {key: _namespace(path, raw, key, verdicts) for key in _SHARED}
    if found["uts"] == "host" and raw.get("hostname"):
        verdicts.refuse(
            f"{path}.hostname", "uts: host has the node's host name", "leave one of the two out"
        )
    runtime = raw.get("runtime")
    if runtime and runtime not in _RUNTIMES:
        verdicts.refuse(
            f"{path}.runtime",
            f"the runtime {runtime} is not available",
            "leave it out: every node runs containers by crun or runc",
        )
    return {
        **{key: value for key, value in found.items() if value != "private"},
        "cpuset": _processors(path, raw, verdicts),
        "cpu_shares": number(raw.get("cpu_shares")) or None,
        "memory_swap": _swap(path, raw, deploy, verdicts),
        "platform": platform(raw.get("platform")),
    }


def _namespace(path: str, raw: Json, key: str, verdicts: Verdicts) -> str:
    value = str(raw.get(key) or "private")
    if value in _OWN[key]:
        return "private"
    if key != "uts" and pairs.shares(raw, key):
        return "partner"
    if key != "uts" and value.startswith("container:"):
        return "private"  # refused by pairs.check
    if value not in _SHARED[key]:
        hint = "leave it out, or share the node's: host"
        if key == "uts" and value.startswith(("service:", "container:")):
            kind, _, other = value.partition(":")
            hint += f"; with network_mode: {kind}:{other} it has that one's host name, too"
        verdicts.refuse(f"{path}.{key}", f"{key}: {value} is not available", hint)
        return "private"
    return value


def _processors(path: str, raw: Json, verdicts: Verdicts) -> str:
    text = re.sub(r"\s", "", str(raw.get("cpuset") or ""))
    if text and not _CPUS.fullmatch(text):
        verdicts.refuse(f"{path}.cpuset", f"{text!r} names no processors", "write e.g. 0-3 or 0,2")
        return ""
    return text


def _swap(path: str, raw: Json, deploy: Json, verdicts: Verdicts) -> int | None:
    """Return the bytes of memory and swap together, as Compose means it; -1 = any swap."""
    if str(raw.get("memswap_limit")).strip() == "-1":
        return -1
    swap = size_bytes(raw.get("memswap_limit"))
    if not swap:
        return None
    limits = mapping(mapping(deploy.get("resources")).get("limits"))
    memory = size_bytes(limits.get("memory")) or size_bytes(raw.get("mem_limit"))
    if not memory:
        verdicts.refuse(
            f"{path}.memswap_limit", "it is memory and swap together", "set mem_limit, too"
        )
        return None
    if swap < memory:
        verdicts.refuse(
            f"{path}.memswap_limit",
            "it is memory and swap together, and less than mem_limit",
            f"write {memory} or more, or -1 for any swap",
        )
    return min(swap, kernel.MOST_LIMIT)


def platform(text: Any) -> str:
    """Return a platform as nodes are compared with it: ``os/arch``, empty = any."""
    parts = str(text or "").lower().split("/")
    if parts[0] not in ("linux", "windows", "darwin", "freebsd", ""):
        parts.insert(0, "linux")
    return "/".join(_ARCHITECTURES.get(part, part) for part in parts[:2])
