"""What corral does with every key of the Compose language: one table, as data.

``compile_stack`` warns and refuses by it, ``corral lint`` reports by it, and the
support page in docs is printed from it; so code, tool and page cannot differ.
A test walks the language's schema and fails for a key that is missing here.

Paths use ``*`` for any name and ``[]`` for any list item. A key not listed
inherits the verdict of its nearest listed ancestor.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

from specs.compile import schedule_words as schedules
from specs.compile.support_nested import AT_TOP, IN_SERVICE


class KeyVerdict(Enum):
    """What happens to a key that a file uses."""

    HONOURED = "honoured"
    LOADING = "resolved while loading"  # resolved while loading; nothing of it is left at run time
    IGNORED = "no meaning here"  # named in a warning
    LATER = "not honoured yet"  # named in a warning; running without it is safe
    REFUSED = "refused"  # running without it would be wrong


class Support(NamedTuple):
    """``note`` says where it is honoured, or why not and what to do instead."""

    verdict: KeyVerdict
    note: str = ""


_H = KeyVerdict.HONOURED
_O = KeyVerdict.LOADING
_I = KeyVerdict.IGNORED
_L = KeyVerdict.LATER
_R = KeyVerdict.REFUSED

_WINDOWS = "a Windows setting"
_KERNEL = "the node's kernel default applies"

_SERVICE: dict[str, Support] = {
    "annotations": Support(_H, "OCI annotations"),
    "attach": Support(_H, "false: `up` does not stream this service's log"),
    "blkio_config": Support(_L, _KERNEL),
    "build": Support(_H, "buildah, on the machine where the command runs"),
    "build.additional_contexts": Support(_R, "copy what the build needs into its context"),
    "build.cache_from": Support(_I, "the node's own layer cache is used"),
    "build.cache_to": Support(_I, "the node's own layer cache is used"),
    "build.entitlements": Support(_L),
    "build.isolation": Support(_I, _WINDOWS),
    "build.no_cache_filter": Support(_L),
    "build.platforms": Support(_L, "images are built for the building node's platform"),
    "build.privileged": Support(_L),
    "build.provenance": Support(_L),
    "build.sbom": Support(_L),
    "build.secrets": Support(
        _R, "a build without its secret would fail or leak; not available yet"
    ),
    "build.shm_size": Support(_L),
    "build.ssh": Support(_R, "builds get no SSH agent yet"),
    "build.ulimits": Support(_L),
    "cap_add": Support(_H),
    "cap_drop": Support(_H),
    "cgroup": Support(_L, "every container has a private cgroup namespace"),
    "cgroup_parent": Support(_L, "containers live under the cgroup corral/"),
    "command": Support(_H),
    "configs": Support(_H, "shipped by content; a changed content replaces the tasks"),
    "container_name": Support(_H, "one replica only"),
    "cpu_count": Support(_I, _WINDOWS),
    "cpu_percent": Support(_I, _WINDOWS),
    "cpu_period": Support(_H, "with cpu_quota, as a CPU limit"),
    "cpu_quota": Support(_H, "with cpu_period, as a CPU limit"),
    "cpu_rt_period": Support(_L, _KERNEL),
    "cpu_rt_runtime": Support(_L, _KERNEL),
    "cpu_shares": Support(_H),
    "cpus": Support(_H),
    "cpuset": Support(_H, "of each node it runs on"),
    "credential_spec": Support(_R, _WINDOWS),
    "depends_on": Support(_H, "all three conditions, across hosts"),
    "deploy": Support(_H),
    "deploy.update_config.failure_action": Support(_H, "pause, continue, rollback"),
    "deploy.rollback_config.failure_action": Support(_H, "pause, continue, rollback"),
    "deploy.labels": Support(_H, "labels of the service object; containers do not get them"),
    "deploy.mode": Support(_H, "replicated, global, replicated-job, global-job: see docs/jobs.md"),
    "deploy.resources.reservations.devices": Support(_R, "devices are not scheduled yet"),
    "deploy.resources.reservations.generic_resources": Support(_R, "not scheduled yet"),
    "develop": Support(_O, "what `corral watch` does; nothing of it is left in a container"),
    "device_cgroup_rules": Support(_R, "use `devices`"),
    "devices": Support(_H, "device files; names of vendors' devices (CDI) are refused"),
    "dns": Support(_H),
    "dns_opt": Support(_H),
    "dns_search": Support(_H),
    "domainname": Support(_H, "in /etc/hosts, with hostname"),
    "entrypoint": Support(_H),
    "env_file": Support(_O, "folded into environment"),
    "environment": Support(_H),
    "expose": Support(_H, "metadata only, as in Compose"),
    "extends": Support(_O),
    "external_links": Support(_H, "the alias of a container on a network that both are in"),
    "extra_hosts": Support(_H),
    "gpus": Support(_R, "devices are not scheduled yet"),
    "group_add": Support(_H),
    "healthcheck": Support(
        _H, "probed by the task's agent; unhealthy, it is restarted where there is a restart policy"
    ),
    "logging.options": Support(_H, "max-size and max-file; others are named in a warning"),
    "hostname": Support(_H),
    "image": Support(_H, "the digest is pinned in the release"),
    "init": Support(_H),
    "ipc": Support(
        _H, "private, shareable, host, none, service:X (that is shareable); container: refused"
    ),
    "isolation": Support(_I, _WINDOWS),
    "label_file": Support(_O, "folded into labels"),
    "labels": Support(_H),
    "links": Support(_H, "the order, and the alias for this service alone"),
    "logging": Support(_H, "drivers local, json-file, none; others are refused"),
    "mac_address": Support(_L, "nothing on the routed overlay sees it"),
    "mem_limit": Support(_H),
    "mem_reservation": Support(_H, "reserved by the scheduler"),
    "mem_swappiness": Support(_L, _KERNEL),
    "memswap_limit": Support(_H, "where the node's kernel counts swap, else a warning"),
    "models": Support(_R, "corral runs no models"),
    "network_mode": Support(
        _H, "none, host, service:X (beside that task); bridge = default; container: refused"
    ),
    "networks": Support(_H),
    "networks.*.driver_opts": Support(_L),
    "networks.*.interface_name": Support(_L, "interfaces are eth0, eth1 ... by priority and name"),
    "networks.*.ipv6_address": Support(_R, "the overlay is IPv4"),
    "networks.*.link_local_ips": Support(_L),
    "networks.*.mac_address": Support(_L, "nothing on the routed overlay sees it"),
    "oom_kill_disable": Support(_L),
    "oom_score_adj": Support(_H),
    "pid": Support(_H, "host, service:X (beside that task); container: refused"),
    "pids_limit": Support(_H),
    "platform": Support(_H, "it runs on nodes of that architecture; nothing is emulated"),
    "ports": Support(_H, "every node answers; `mode: host`: the task's node only"),
    "ports[].app_protocol": Support(_I, "only a note to the reader"),
    "ports[].name": Support(_I, "only a note to the reader"),
    "post_start": Support(
        _H, "after every start of the container; where one fails, so does the start"
    ),
    "pre_start": Support(_R, "use a one-off service and `service_completed_successfully`"),
    "pre_stop": Support(_H, "before the stop signal, within stop_grace_period; not at `kill`"),
    "privileged": Support(_H),
    "profiles": Support(_O),
    "provider": Support(_R, "corral runs containers only"),
    "pull_policy": Support(_H),
    "pull_refresh_after": Support(_I, "never honoured by Compose either"),
    "read_only": Support(_H),
    "restart": Support(_H),
    "runtime": Support(_H, "runc and crun: the node's own of the two is used; others refused"),
    "scale": Support(_H),
    "secrets": Support(_H, "sealed in the store; on nodes in memory only"),
    "secrets[].mode": Support(_H, "0444 unless given, whatever the file's own mode is"),
    "security_opt": Support(
        _H,
        "no-new-privileges, seccomp=unconfined, apparmor=unconfined; the others change nothing yet",
    ),
    "shm_size": Support(_H),
    "stdin_open": Support(_H),
    "stop_grace_period": Support(_H),
    "stop_signal": Support(_H),
    "storage_opt": Support(_L),
    "sysctls": Support(_H, "low ports and ping are open to every user unless said otherwise"),
    "tmpfs": Support(_H, "with Docker's options"),
    "tty": Support(_H),
    "ulimits": Support(_H),
    "use_api_socket": Support(_R, "there is no Docker API"),
    "user": Support(_H),
    "userns_mode": Support(_R, "user namespaces are not available yet"),
    "uts": Support(_H, "host: the node's host name"),
    "volumes": Support(_H),
    "volumes[].bind.recursive": Support(_H, "enabled, disabled, writable, readonly"),
    "volumes[].bind.selinux": Support(_I, "no SELinux labelling"),
    "volumes[].consistency": Support(_I, "a macOS setting"),
    "volumes[].image": Support(_R, "image mounts are not available yet"),
    "volumes[].volume.labels": Support(_L),
    "volumes_from": Support(_H, "named volumes and binds of services of the file"),
    "working_dir": Support(_H),
}

_TOP: dict[str, Support] = {
    "version": Support(_I, "obsolete"),
    "name": Support(_O, "the stack's name"),
    "include": Support(_O),
    "services": Support(_H),
    "services.*": Support(_H),
    "networks": Support(_H),
    "networks.*": Support(_H),
    "networks.*.driver": Support(_H, "bridge and overlay are the same routed overlay"),
    "networks.*.driver_opts": Support(_L, "com.docker.network.driver.mtu and encrypted are read"),
    "networks.*.enable_ipv4": Support(_L, "the overlay is IPv4"),
    "networks.*.enable_ipv6": Support(_L, "the overlay is IPv4"),
    "networks.*.ipam": Support(_H, "the first IPv4 subnet"),
    "networks.*.ipam.driver": Support(_L, "corral gives the addresses itself: write `default`"),
    "networks.*.ipam.options": Support(_L),
    "networks.*.ipam.config[].gateway": Support(_I, "a routed network has no gateway address"),
    "networks.*.ipam.config[].ip_range": Support(_L),
    "networks.*.ipam.config[].aux_addresses": Support(_L),
    "networks.*.attachable": Support(_H),
    "volumes": Support(_H),
    "volumes.*": Support(_H),
    "volumes.*.driver": Support(_H, "local; others are refused"),
    "volumes.*.driver_opts": Support(_H, "nfs, cifs, tmpfs, and `type: none, o: bind`"),
    "secrets": Support(_H),
    "secrets.*": Support(_H),
    "secrets.*.driver": Support(_R, "use file, environment or external"),
    "secrets.*.driver_opts": Support(_R, "use file, environment or external"),
    "secrets.*.template_driver": Support(_R, "templates are not available yet"),
    "secrets.*.external": Support(_H, "made by `corral secret create`"),
    "configs": Support(_H),
    "configs.*": Support(_H),
    "configs.*.template_driver": Support(_R, "templates are not available yet"),
    "configs.*.external": Support(_H, "made by `corral config create`"),
    "models": Support(_R, "corral runs no models"),
}

SUPPORT: dict[str, Support] = {
    **dict.fromkeys(AT_TOP.split(), Support(_H)),
    **{f"services.*.{key}": Support(_H) for key in IN_SERVICE.split()},
    **_TOP,
    **{f"services.*.{key}": support for key, support in _SERVICE.items()},
}


class Extension(NamedTuple):
    """A setting of corral's own below ``x-corral``; ``schema`` is JSON schema."""

    note: str
    schema: dict[str, Any]


EXTENSIONS: dict[str, Extension] = {
    "x-corral.deadline": Extension(
        "seconds (or 10m) without progress before a release fails",
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]},
    ),
    "x-corral.security": Extension(
        "default (Docker's), baseline or restricted: see docs/security.md; a service may differ",
        {"enum": ["default", "baseline", "restricted"]},
    ),
    "services.*.x-corral.security": Extension(
        "default (Docker's), baseline or restricted; without it the stack's",
        {"enum": ["default", "baseline", "restricted"]},
    ),
    "x-corral.strategy": Extension(
        "spread (default) or pack: nodes are filled one after the other; a service may differ",
        {"enum": ["spread", "pack"]},
    ),
    "services.*.x-corral.strategy": Extension(
        "spread or pack (on the fullest node that has room); without it the stack's",
        {"enum": ["spread", "pack"]},
    ),
    "services.*.x-corral.on_unhealthy": Extension(
        "restart or keep; policy (default): restart where there is a restart policy",
        {"enum": ["policy", "restart", "keep"]},
    ),
    "services.*.x-corral.on_reboot": Extension(
        "run (default) or keep: what the end of its machine interrupted is not run again",
        {"enum": ["run", "keep"]},
    ),
    "services.*.x-corral.schedule": Extension(
        "it runs by a schedule, and does not stand by: cron's five fields, or a mapping; "
        "see docs/jobs.md",
        schedules.SCHEMA,
    ),
    "services.*.x-corral.autoscale": Extension(
        "as many tasks as their CPUs or memory ask for, within bounds: see docs/jobs.md",
        schedules.AUTOSCALE,
    ),
    "services.*.x-corral.max_concurrent": Extension(
        "of a replicated-job: how many tasks run at a time; without it all do",
        {"type": "integer", "minimum": 1},
    ),
    "services.*.x-corral.exclusive": Extension(
        "true: never two copies at once, whatever is cut off or frozen: see docs/reliability.md",
        schedules.BOOLEAN,
    ),
    "services.*.x-corral.canary": Extension(
        "{replicas: N, weight: 10%, promote: manual, `after 10m` or `healthy-for 10m`}:"
        " see docs/rollouts.md",
        {
            "type": "object",
            "properties": {
                "replicas": {"type": "integer", "minimum": 1},
                "weight": {"type": ["string", "integer"]},
                "promote": {"type": "string"},
            },
            "additionalProperties": False,
        },
    ),
    "services.*.x-corral.update": Extension(
        "rolling (default) or blue-green: all new tasks beside the old ones, then traffic at once",
        {"enum": ["rolling", "blue-green"]},
    ),
    "services.*.x-corral.depends_deadline": Extension(
        "how long (2m, or {db: 2m, cache: 10s}) it waits for what it depends on; then `up` fails",
        {
            "anyOf": [
                {"type": ["string", "number"]},
                {"type": "object", "additionalProperties": {"type": ["string", "number"]}},
            ]
        },
    ),
    "services.*.x-corral.keep_old": Extension(
        "how long (10m) the old tasks of a blue-green update stay, ready to go back to",
        {"type": "string"},
    ),
    "volumes.*.x-corral.per_slot": Extension("true: one volume per replica", schedules.BOOLEAN),
}


@lru_cache(maxsize=1024)
def support_of(path: str) -> Support:
    """Return the verdict for a dotted path in SUPPORT's notation, by nearest ancestor."""
    while path:
        if path in SUPPORT:
            return SUPPORT[path]
        if path.endswith("[]"):
            path = path[:-2]
            continue
        path = path.rpartition(".")[0]
    return Support(_H)
