"""What a container was made from, with the keys that ``docker inspect`` has for it.

Keys and units are Docker's: CPUs in billionths, sizes in bytes, times in nanoseconds. What is not
known (the release is not kept any more; the image's own part) stays out, rather than be guessed.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Row = Mapping[str, Any]

BILLION = 1_000_000_000
POLICIES = {"none": "no", "on-failure": "on-failure", "any": "always"}


def config(row: Row, made: Row) -> dict[str, Any]:
    """Return ``Config``; ``made`` is a TaskMade, or empty where the controller cannot say."""
    spec = made.get("spec") or {}
    said = {
        "Image": row.get("image", ""),
        "Cmd": command(row, made)[len(spec.get("entrypoint") or ()) :] or None,
        "Labels": row.get("labels") or {},
    }
    if not spec:
        return said
    return {
        "Hostname": spec.get("hostname") or "",
        "Domainname": spec.get("domainname") or "",
        "User": spec.get("user") or "",
        "Tty": bool(spec.get("tty")),
        "OpenStdin": bool(spec.get("stdin_open")),
        "Env": [f"{key}={value}" for key, value in (spec.get("environment") or {}).items()],
        **said,
        "Entrypoint": _list(spec.get("entrypoint")),
        "WorkingDir": spec.get("working_dir") or "",
        "ExposedPorts": {_port(port): {} for key in ("ports", "expose") for port in spec[key]},
        **_check(spec.get("healthcheck")),
        **({"StopSignal": spec["stop_signal"]} if spec.get("stop_signal") else {}),
        "StopTimeout": int(spec.get("stop_grace") or 0),
    }


def command(row: Row, made: Row) -> list[str]:
    """Return what the container begins with: the image's part too, once the node has said it."""
    told = ((made.get("task") or {}).get("status") or {}).get("command")
    spec = made.get("spec") or {}
    written = [*(spec.get("entrypoint") or ()), *(spec.get("command") or ())]
    known = list(told or written)
    return known or ([str(row["command"])] if row.get("command") else [])


def host_config(made: Row) -> dict[str, Any]:
    """Return ``HostConfig``, empty where it is not known."""
    spec = made.get("spec") or {}
    if not spec:
        return {}
    limits = (spec.get("resources") or {}).get("limits") or {}
    reserved = (spec.get("resources") or {}).get("reservations") or {}
    logs = spec.get("logging") or {}
    policy = spec.get("restart") or {}
    return {
        "Binds": [_bind(mount, made) for mount in spec["mounts"] if mount.get("source")] or None,
        "LogConfig": {
            "Type": logs.get("driver", ""),
            "Config": {
                "max-size": str(logs.get("max_size", "")),
                "max-file": str(logs.get("max_files", "")),
            },
        },
        "NetworkMode": _network(spec),
        "PortBindings": _bindings(spec["ports"]),
        "RestartPolicy": {
            "Name": POLICIES.get(str(policy.get("condition")), ""),
            "MaximumRetryCount": policy.get("max_attempts") or 0,
        },
        "CapAdd": _list(spec.get("cap_add")),
        "CapDrop": _list(spec.get("cap_drop")),
        "Dns": list(spec.get("dns") or ()),
        "DnsOptions": list(spec.get("dns_opt") or ()),
        "DnsSearch": list(spec.get("dns_search") or ()),
        "ExtraHosts": [f"{name}:{address}" for name, address in spec.get("extra_hosts") or ()],
        "GroupAdd": _list(spec.get("group_add")),
        "IpcMode": _shared(spec, "ipc"),
        "PidMode": "" if spec.get("pid") == "private" else _shared(spec, "pid"),
        "UTSMode": "host" if spec.get("uts") == "host" else "",
        "OomScoreAdj": spec.get("oom_score_adj") or 0,
        "Privileged": bool(spec.get("privileged")),
        "ReadonlyRootfs": bool(spec.get("read_only")),
        "SecurityOpt": _security(spec) or None,
        "Init": bool(spec.get("init")),
        "ShmSize": spec.get("shm_size") or 0,
        "Sysctls": dict(spec.get("sysctls") or {}),
        "Tmpfs": {
            mount["target"]: ",".join(mount.get("tmpfs_options") or ())
            for mount in spec["mounts"]
            if mount["type"] == "tmpfs"
        },
        "Ulimits": [
            {"Name": name, "Soft": limit["soft"], "Hard": limit["hard"]}
            for name, limit in (spec.get("ulimits") or {}).items()
        ],
        "Memory": limits.get("memory") or 0,
        "MemoryReservation": reserved.get("memory") or 0,
        "MemorySwap": spec.get("memory_swap") or 0,
        "NanoCpus": round((limits.get("cpus") or 0) * BILLION),
        "PidsLimit": limits.get("pids") or None,
        "CpusetCpus": spec.get("cpuset") or "",
        "CpuShares": spec.get("cpu_shares") or 0,
    }


def mounts(row: Row, made: Row) -> list[dict[str, Any]]:
    """Return ``Mounts``."""
    spec = made.get("spec") or {}
    if not spec:
        return [
            {"Type": "bind", "Source": mount}
            if mount.startswith("/")
            else {"Type": "volume", "Name": mount}
            for mount in map(str, row.get("mounts") or ())
        ]
    return [
        {
            "Type": mount["type"],
            "Name": _source(mount, made) if mount["type"] == "volume" else "",
            "Source": _source(mount, made) if mount["type"] == "bind" else "",
            "Destination": mount["target"],
            "Mode": "",
            "RW": not mount.get("read_only"),
            "Propagation": mount.get("propagation", "") if mount["type"] == "bind" else "",
        }
        for mount in spec["mounts"]
    ]


def _list(words: Sequence[str] | None) -> list[str] | None:
    return list(words) if words else None


def _port(port: Row) -> str:
    return f"{port['target']}/{port['protocol']}"


def _source(mount: Row, made: Row) -> str:
    source = str(mount.get("source") or "")
    return str((made.get("volumes") or {}).get(source, source))


def _bind(mount: Row, made: Row) -> str:
    return f"{_source(mount, made)}:{mount['target']}:{'ro' if mount.get('read_only') else 'rw'}"


def _network(spec: Row) -> str:
    mode = str(spec.get("network_mode"))
    if mode == "overlay":
        return str(spec["networks"][0]["network"]) if spec["networks"] else "none"
    return f"service:{spec.get('partner')}" if mode == "partner" else mode


def _shared(spec: Row, key: str) -> str:
    mode = str(spec.get(key) or "")
    return f"service:{spec.get('partner')}" if mode == "partner" else mode


def _security(spec: Row) -> list[str]:
    found = ["no-new-privileges"] if spec.get("no_new_privileges") else []
    kinds = ("seccomp", "apparmor")
    return found + [f"{key}=unconfined" for key in kinds if spec.get(key) == "unconfined"]


def _bindings(ports: Sequence[Row]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        place = {"HostIp": port.get("host_ip") or "", "HostPort": str(port.get("published") or "")}
        found.setdefault(_port(port), []).append(place)
    return found


def _check(check: Row | None) -> dict[str, Any]:
    if not check:
        return {}
    times = {
        "Interval": "interval",
        "Timeout": "timeout",
        "StartPeriod": "start_period",
        "StartInterval": "start_interval",
    }
    nanoseconds = {name: round(check[key] * BILLION) for name, key in times.items()}
    said = {"Test": list(check["test"]), **nanoseconds, "Retries": check["retries"]}
    return {"Healthcheck": said}
