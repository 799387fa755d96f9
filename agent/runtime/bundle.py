"""Write a task as an OCI runtime configuration (pure: values in, config.json out).

``agent/tasks/runner.py`` collects what is needed (image, user, root, network, mounts) and
hands it in; this module knows Docker's default security level and how the keys
corral honours change it. It never looks at the node: what the node can do comes
in as :class:`NodeTraits`. A key that cannot be honoured raises ``Refusal``.

ociVersion is 1.0.2: crun 1.8 refuses newer ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from agent.errors import Refusal
from agent.runtime import seccomp
from agent.vocabulary import argv
from specs.kernel import (
    ALL_CAPABILITIES,
    BY_LEVEL,
    LONGEST_ARGUMENT,
    RLIMITS,
    capability,
    room_for_arguments,
    sysctl_fault,
    weight,
)
from specs.kit.programs import SYSTEM_PATH
from specs.names import target_fault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.vocabulary import BoundMount, ImageConfig
    from specs.stack import TaskSpec
    from specs.wire import Assignment

MASKED: Final = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys"),
    *("/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list"),
    *("/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"),
)
MASKED_TOO: Final = ("/sys/fs/selinux",)  # above Docker's level
READ_ONLY: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
INIT: Final = "/dev/.corral-init"  # on the container's own tmpfs: nothing is made in its root
PERIOD: Final = 100_000  # microseconds of CPU quota accounting, as Docker

# In a network of its own nobody has to be root to take a low port or to ping, as in Docker.
_OPEN_NETWORK: Final = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}
# Default device rules: everything may be made, only these may be used.
_DEVICE_RULES: Final[tuple[tuple[str, int | None, int | None], ...]] = (
    *(("c", 1, minor) for minor in (3, 5, 7, 8, 9)),
    *(("c", 5, minor) for minor in (0, 1, 2)),
    ("c", 136, None),
)


@dataclass(frozen=True)
class NodeTraits:
    """What this node can do, as far as a bundle depends on it (agent/facts.py probes it)."""

    arch: str = "amd64"
    cgroups: str = "v2"
    grantable: frozenset[str] = frozenset(ALL_CAPABILITIES)
    runtime: str = "crun"
    init: str | None = None  # a static init program
    rlimits: Mapping[str, int] | None = None  # hard limits we cannot raise; None = no such bound
    cgroup_parent: str = "corral"
    apparmor: str = ""  # the profile that is loaded; empty = none
    swap: bool = True  # the kernel counts swap of cgroups
    cpus: int = 0  # processors, 0 = not known
    all_groups: bool = True  # False in a user namespace: not every group may be named


@dataclass(frozen=True)
class User:
    """Who the process is, resolved against the image's own files."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


@dataclass(frozen=True)
class NodeDevice:
    """A device file of the node and where the container sees it."""

    path: str
    kind: str  # c | b
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


@dataclass(frozen=True)
class Inputs:
    """Everything a bundle is made of."""

    assignment: Assignment
    image: ImageConfig
    root: str
    user: User
    netns: str | None  # None = the node's own network
    hostname: str
    etc: Mapping[str, str]  # file in the container -> file on the node
    mounts: Sequence[BoundMount] = ()
    devices: Sequence[NodeDevice] = ()


@dataclass(frozen=True)
class OciBundle:
    """``config`` is config.json; ``warnings`` say what was clamped, for people."""

    config: dict[str, Any]
    warnings: tuple[str, ...] = ()


def build(inputs: Inputs, host: NodeTraits) -> OciBundle:
    """Return the task's OCI configuration. Raises Refusal."""
    spec = inputs.assignment.spec
    warnings: list[str] = []
    granted = capabilities(spec, host, warnings)
    config: dict[str, Any] = {
        "ociVersion": "1.0.2",
        **({"hostname": inputs.hostname} if spec.uts == "private" else {}),
        "root": {"path": inputs.root, "readonly": spec.read_only},
        "process": _process(inputs, host, granted, warnings),
        "mounts": _mounts(inputs, host),
        "annotations": dict(spec.annotations),
        "linux": _linux(inputs, host, warnings),
    }
    if spec.domainname:
        config["annotations"]["org.corral.domainname"] = spec.domainname
    if not spec.privileged and spec.seccomp != "unconfined":
        _filter(config, granted, host, socketcall=spec.security == "default")
    return OciBundle(config, tuple(warnings))


def _capability(name: str) -> str:
    full = capability(name)
    if not full:
        raise Refusal(f"capability {name!r} does not exist; see capabilities(7)")
    return full


def capabilities(spec: TaskSpec, host: NodeTraits, warnings: list[str]) -> frozenset[str]:
    """Return the container's capabilities: its level's with cap_add and cap_drop applied."""
    everything = frozenset(ALL_CAPABILITIES)
    add = {_capability(name) for name in spec.cap_add}
    drop = {_capability(name) for name in spec.cap_drop}
    if spec.privileged or "CAP_ALL" in add:
        wanted = everything
        lost = sorted(wanted - drop - host.grantable)
        if lost and "CAP_ALL" not in drop:
            warnings.append(f"this node cannot grant {', '.join(lost)}")
        wanted &= host.grantable
    else:
        usual = BY_LEVEL[spec.security] & host.grantable
        wanted = frozenset() if "CAP_ALL" in drop else usual
        lost = sorted(add - host.grantable)
        if lost:
            raise Refusal(
                f"this node cannot grant {', '.join(lost)} (cap_add): it has it not itself"
            )
        wanted |= add
    return wanted - drop if "CAP_ALL" not in drop else wanted & add


def command_line(spec: TaskSpec, image: ImageConfig) -> tuple[str, ...]:
    """Return argv, which has a first word. Raises Refusal."""
    args = argv(spec, image)
    if not args:
        raise Refusal(
            f"image {spec.image} has neither entrypoint nor command, and the service gives none; "
            "set command:"
        )
    if not args[0]:
        raise Refusal(
            f"the first word of the command of image {spec.image} is empty, and no program has "
            "that name; write the program there"
        )
    return args


def environment(spec: TaskSpec, image: ImageConfig, user: User, hostname: str) -> list[str]:
    """Return the environment: defaults, then the image's, then the service's."""
    values = {"PATH": SYSTEM_PATH, "HOSTNAME": hostname}
    if spec.tty:
        values["TERM"] = "xterm"
    values.update(image.environment)
    values.update(spec.environment)
    values.setdefault("HOME", user.home)
    return [f"{name}={value}" for name, value in values.items()]


def _process(
    inputs: Inputs,
    host: NodeTraits,
    granted: frozenset[str],
    warnings: list[str],
) -> dict[str, Any]:
    spec, user = inputs.assignment.spec, inputs.user
    if spec.security == "restricted" and user.uid == 0:
        raise Refusal(
            f"{spec.image} runs as root, which x-corral.security: restricted does not allow; set"
            " user: to another one"
        )
    args = command_line(spec, inputs.image)
    if spec.init:
        if host.init is None:
            raise Refusal(
                "init: true needs a static init program on the node; install Debian's tini or "
                "catatonit package"
            )
        args = (INIT, "--", *args)
    variables = environment(spec, inputs.image, user, inputs.hostname)
    _fits(args, variables, spec)
    names = sorted(granted)
    # A process that is not root gets nothing by itself, but may regain through file capabilities.
    effective = names if user.uid == 0 else []
    process: dict[str, Any] = {
        "terminal": spec.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": list(args),
        "env": variables,
        "cwd": working_dir(spec, inputs.image),
        "capabilities": {
            "bounding": names,
            "effective": effective,
            "permitted": effective,
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": spec.no_new_privileges,
    }
    if host.apparmor and not spec.privileged and spec.apparmor != "unconfined":
        process["apparmorProfile"] = host.apparmor
    if spec.tty:
        process["consoleSize"] = {"height": 24, "width": 80}
    if spec.ulimits:
        process["rlimits"] = _rlimits(spec, host, warnings)
    if spec.oom_score_adj is not None:
        process["oomScoreAdj"] = _oom_score(spec.oom_score_adj, host, warnings)
    return process


def _fits(args: Sequence[str], variables: Sequence[str], spec: TaskSpec) -> None:
    """Refuse what execve(2) does not take, in words: the runtime would only name its errno."""
    stack = spec.ulimits.get("stack")
    room = room_for_arguments(stack.soft if stack else None)
    if (size := weight([*args, *variables])) > room:
        raise Refusal(
            f"command and environment take {size} bytes and the kernel gives a process {room}; "
            "put what is long into a file: configs:, secrets: or a volume"
        )
    for text in (*args, *variables):
        if len(text.encode(errors="replace")) >= LONGEST_ARGUMENT:
            raise Refusal(
                f"{text[:30]!a}... in command or environment is longer than the "
                f"{LONGEST_ARGUMENT} bytes that the kernel takes of one; put it into a file"
            )


def working_dir(spec: TaskSpec, image: ImageConfig) -> str:
    """Return the directory the command starts in."""
    path = spec.working_dir or image.working_dir or "/"
    if not path.startswith("/"):
        raise Refusal(f"working_dir {path!r} is not an absolute path")
    return path


def _oom_score(wanted: int, host: NodeTraits, warnings: list[str]) -> int:
    if wanted < 0 and "CAP_SYS_RESOURCE" not in host.grantable:
        warnings.append(f"oom_score_adj {wanted} needs CAP_SYS_RESOURCE on this node; 0 is used")
        return 0
    return wanted


def _rlimits(spec: TaskSpec, host: NodeTraits, warnings: list[str]) -> list[dict[str, Any]]:
    found = []
    for name, limit in sorted(spec.ulimits.items()):
        if name not in RLIMITS:
            raise Refusal(f"ulimit {name!r} does not exist; known are {', '.join(sorted(RLIMITS))}")
        infinity = 2**64 - 1
        soft = infinity if limit.soft < 0 else limit.soft
        hard = infinity if limit.hard < 0 else limit.hard
        bound = None if host.rlimits is None else host.rlimits.get(name)
        if bound is not None and hard > bound:
            warnings.append(
                f"ulimit {name}: {limit.hard} is more than this node may grant; {bound} is used"
            )
            hard, soft = bound, min(soft, bound)
        found.append({"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard})
    return found


@lru_cache(maxsize=64)
def _base_mounts(shm_size: int, privileged: bool) -> dict[str, dict[str, Any]]:  # noqa: FBT001 - a cache key
    access = "rw" if privileged else "ro"
    mounts = [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        # Always a tmpfs: an image whose /dev is a symlink must not lead the runtime elsewhere.
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            *("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance"),
            *("ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", access),
        _mount(
            "/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", access
        ),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount(
            *("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777"),
            f"size={shm_size}",
        ),
    ]
    return {mount["destination"]: mount for mount in mounts}


def _mount(target: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def _mounts(inputs: Inputs, host: NodeTraits) -> list[dict[str, Any]]:
    spec = inputs.assignment.spec
    mounts = dict(_base_mounts(spec.shm_size, spec.privileged))
    if spec.ipc == "none":
        del mounts["/dev/shm"]
    elif spec.ipc == "host":
        for target in ("/dev/shm", "/dev/mqueue"):
            mounts[target] = _mount(target, "bind", target, "rbind", "rprivate")
    access = "ro" if spec.read_only else "rw"
    for target, source in inputs.etc.items():
        mounts[target] = _mount(target, "bind", source, "rbind", "rprivate", access)
    for mount in inputs.mounts:
        target = mount.target.rstrip("/") or "/"
        if why := target_fault(target):
            raise Refusal(f"nothing can be mounted at {target} of a container: {why}")
        # A later mount at the same place wins, and takes its place in the order: parents first.
        mounts.pop(target, None)
        mounts[target] = _mount(target, mount.type, mount.source, *mount.options)
    if spec.init and host.init:
        mounts[INIT] = _mount(INIT, "bind", host.init, "bind", "rprivate", "ro")
    return list(mounts.values())


def _linux(inputs: Inputs, host: NodeTraits, warnings: list[str]) -> dict[str, Any]:
    spec = inputs.assignment.spec
    own = {"pid": spec.pid, "ipc": spec.ipc, "uts": spec.uts, "mount": "", "cgroup": ""}
    namespaces = [{"type": kind} for kind, whose in own.items() if whose != "host"]
    if inputs.netns is not None:
        network = {"type": "network"}
        if inputs.netns:
            network["path"] = inputs.netns
        namespaces.append(network)
    linux: dict[str, Any] = {
        "cgroupsPath": f"/{host.cgroup_parent}/{inputs.assignment.id}",
        "namespaces": namespaces,
        "resources": _resources(inputs, host, warnings),
        "rootfsPropagation": "private",
    }
    if not spec.privileged:
        linux["maskedPaths"] = [*MASKED, *(MASKED_TOO if spec.security != "default" else ())]
        linux["readonlyPaths"] = list(READ_ONLY)
    if inputs.devices:
        linux["devices"] = [
            {
                "path": device.path,
                "type": device.kind,
                "major": device.major,
                "minor": device.minor,
                "fileMode": device.mode,
                "uid": device.uid,
                "gid": device.gid,
            }
            for device in inputs.devices
        ]
    own_network = inputs.netns is not None and spec.network_mode != "partner"
    if values := _sysctls(spec, host, own_network=own_network):
        linux["sysctl"] = values
    return linux


def _sysctls(spec: TaskSpec, host: NodeTraits, *, own_network: bool) -> dict[str, str]:
    for name in spec.sysctls:
        if why := sysctl_fault(name, own_network=own_network):
            raise Refusal(why)
    defaults = dict(_OPEN_NETWORK) if own_network else {}
    if not host.all_groups:
        defaults.pop("net.ipv4.ping_group_range", None)
    return defaults | spec.sysctls


def _resources(inputs: Inputs, host: NodeTraits, warnings: list[str]) -> dict[str, Any]:
    spec = inputs.assignment.spec
    limits = spec.resources.limits
    resources: dict[str, Any] = {"devices": _device_rules(inputs)}
    if limits.memory is not None:
        resources["memory"] = {"limit": limits.memory}
        if spec.resources.reservations.memory:
            resources["memory"]["reservation"] = min(
                spec.resources.reservations.memory, limits.memory
            )
    if spec.memory_swap is not None:
        if host.swap:
            resources.setdefault("memory", {})["swap"] = spec.memory_swap
        else:
            warnings.append("memswap_limit: the kernel of this node does not count swap")
    cpu: dict[str, Any] = {}
    if limits.cpus:
        cpu = {"quota": max(int(limits.cpus * PERIOD), 1000), "period": PERIOD}
    if spec.cpu_shares is not None:
        cpu["shares"] = spec.cpu_shares
    if spec.cpuset:
        _there(spec.cpuset, host)
        cpu["cpus"] = spec.cpuset
    if cpu:
        resources["cpu"] = cpu
    if limits.pids is not None and limits.pids > 0:
        resources["pids"] = {"limit": limits.pids}
    return resources


def _there(cpuset: str, host: NodeTraits) -> None:
    """Refuse processors the node does not have: the kernel would only name its errno."""
    last = max(int(word) for part in cpuset.split(",") for word in part.split("-"))
    if host.cpus and last >= host.cpus:
        raise Refusal(
            f"cpuset {cpuset}: this node has the processors 0-{host.cpus - 1}; name some of them,"
            " or place the service on a node that has more"
        )


def _device_rules(inputs: Inputs) -> list[dict[str, Any]]:
    if inputs.assignment.spec.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[dict[str, Any]] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "access": "m"},
        {"allow": True, "type": "b", "access": "m"},
    ]
    for kind, major, minor in _DEVICE_RULES:
        rule: dict[str, Any] = {"allow": True, "type": kind, "major": major, "access": "rwm"}
        if minor is not None:
            rule["minor"] = minor
        rules.append(rule)
    rules.extend(
        {
            "allow": True,
            "type": device.kind,
            "major": device.major,
            "minor": device.minor,
            "access": device.access,
        }
        for device in inputs.devices
    )
    return rules


def _filter(
    config: dict[str, Any], granted: frozenset[str], host: NodeTraits, *, socketcall: bool
) -> None:
    config["linux"]["seccomp"] = _profile(granted, host.arch, socketcall=socketcall)
    if host.runtime == "crun":
        program = seccomp.compiled(granted, host.arch, socketcall=socketcall)
        if program is not None:
            # crun takes the program instead of compiling the JSON form: 12 ms less for every start,
            # 18 for every exec. The JSON form stays beside it for a runtime that knows no such key.
            config["annotations"]["run.oci.seccomp_bpf_data"] = program


@lru_cache(maxsize=64)
def _profile(granted: frozenset[str], arch: str, *, socketcall: bool) -> dict[str, Any]:
    return seccomp.profile(granted, arch, socketcall=socketcall)
