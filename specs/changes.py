"""What differs between two versions of a stack, key by key, in the words of the Compose file.

``plan`` asks it about what runs and what a file asks for, ``diff`` about two releases. Pure:
two :class:`specs.stack.StackSpec` in, a list of :class:`SpecChange` out. Whatever differs in the
specs is in the list, also in a field this module has no words for.

Values are texts for people and are masked: what a variable with a secret name has is never in
them, that it differs is. Secrets and configs differ by their versions only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from specs import updates
from specs.findings import Findings
from specs.kit import masking
from specs.kit.amounts import as_set, size
from specs.stack import StackSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from specs.problems import Position
    from specs.stack import FileRef, Mount, NetworkAttachment, Port, ServiceSpec

Section = Literal["services", "networks", "volumes", "secrets", "configs", "stack"]
Sign = Literal["+", "-", "~"]
SHORT = 12  # characters of a digest that people read
IMAGE = "image"  # the key under which both a reference and the digest behind it stand


@dataclass(frozen=True, slots=True)
class SpecChange:
    """One difference.

    ``key`` is the dotted key below ``name``: ``environment.LEVEL``; empty: ``name`` itself came
    or went. ``old`` and ``new`` are texts, "" = it is not there. ``path`` is where a file has it.
    ``replaces``: the tasks of the service cannot keep running as they are.
    """

    section: Section
    name: str
    key: str
    sign: Sign
    old: str
    new: str
    path: str
    position: Position | None = None
    replaces: bool = False

    def __str__(self) -> str:
        what = self.key or self.name
        match self.sign:
            case "+":
                return f"{what}: {self.new}" if self.key and self.new else what
            case "-":
                return f"{what}: {self.old}" if self.key and self.old else what
            case "~":
                if self.old == self.new:  # both are hidden
                    return f"{what}: another value"
                return f"{what}: {self.old or 'none'} -> {self.new or 'none'}"


@dataclass(frozen=True, slots=True)
class _Leaf:
    """The text of one key; ``value`` is what is compared, and never shown."""

    text: str
    value: Any
    paths: tuple[str, ...]  # where a file may have it, below the service
    replaces: bool = True


Leaves = dict[str, _Leaf]


class _File:
    """Where the newer file has things."""

    def __init__(self, origins: Mapping[str, Position]) -> None:
        self.origins = origins
        self.position_of = Findings(origins).position_of


def changes(
    before: StackSpec | None,
    after: StackSpec | None,
    *,
    images: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {}),
    origins: Mapping[str, Position] | None = None,
) -> tuple[SpecChange, ...]:
    """Return what differs, services first, each in the order of the file it is in.

    ``images``: service -> digest, of both; a service without one is compared by its reference
    only. ``origins``: where the newer file has its dotted paths (``Deploy.origins``).
    """
    found = _File(origins or {})
    old, new = before or StackSpec(name=""), after or StackSpec(name="")
    result: list[SpecChange] = []
    for name in _both(old.services, new.services):
        result += _service(
            old.services.get(name),
            new.services.get(name),
            (images[0].get(name, ""), images[1].get(name, "")),
            found,
        )
    for section in ("networks", "volumes", "secrets", "configs"):
        mine, theirs = getattr(old, section), getattr(new, section)
        for name in _both(mine, theirs):
            result += _object(section, name, mine.get(name), theirs.get(name), found)
    if before is not None and after is not None and old.deadline != new.deadline:
        key = "x-corral.deadline"
        texts = as_set(old.deadline), as_set(new.deadline)
        result.append(
            SpecChange("stack", new.name, key, "~", texts[0], texts[1], key, found.position_of(key))
        )
    return tuple(result)


def _both(old: Iterable[str], new: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*new, *old]))


# services


def _service(
    old: ServiceSpec | None,
    new: ServiceSpec | None,
    digests: tuple[str, str],
    found: _File,
) -> list[SpecChange]:
    if old == new and (digests[0] == digests[1] or not all(digests)):
        return []
    name = (new or old).name  # type: ignore[union-attr]  # one of both is there
    base = f"services.{name}"
    if old is None or new is None:
        there = new or old
        image = there.task.image if there is not None else ""
        return [
            SpecChange(
                "services",
                name,
                "",
                "-" if new is None else "+",
                image if new is None else "",
                image if new is not None else "",
                base,
                found.position_of(base) if new is not None else None,
                replaces=True,
            )
        ]
    mine, theirs = _leaves(old), _leaves(new)
    result = [
        _changed(name, key, mine.get(key), theirs.get(key), found) for key in _both(mine, theirs)
    ]
    told = [change for change in result if change is not None]
    digest = _digest(old, new, digests, found)
    if digest is not None:
        told = [digest, *(change for change in told if change.key != IMAGE)]
    return _gathered(told)


def _changed(
    name: str, key: str, old: _Leaf | None, new: _Leaf | None, found: _File
) -> SpecChange | None:
    if (old.value if old else None) == (new.value if new else None):
        return None
    there = new or old
    assert there is not None, "a key comes from one of both"
    paths = [f"services.{name}.{path}" for path in there.paths]
    path = next((path for path in paths if path in found.origins), paths[0])
    return SpecChange(
        "services",
        name,
        key,
        "+" if old is None else "-" if new is None else "~",
        old.text if old else "",
        new.text if new else "",
        path,
        found.position_of(path),
        replaces=there.replaces,
    )


def _digest(
    old: ServiceSpec, new: ServiceSpec, digests: tuple[str, str], found: _File
) -> SpecChange | None:
    """Return the change of an image where both are known by digest: the name alone is no image."""
    before = digests[0] or old.task.image_digest
    after = digests[1] or new.task.image_digest
    if before == after or not before or not after:
        return None
    path = f"services.{new.name}.{IMAGE}"
    if path not in found.origins and new.build is not None:
        path = f"services.{new.name}.build"
    return SpecChange(
        "services",
        new.name,
        IMAGE,
        "~",
        _pinned(old.task.image, before),
        _pinned(new.task.image, after),
        path,
        found.position_of(path),
        replaces=True,
    )


def _pinned(image: str, digest: str) -> str:
    name = image.partition("@")[0]
    return f"{name} ({short(digest)})"


def short(digest: str) -> str:
    """Return a digest as people read it: without its algorithm, the first characters."""
    return digest.rpartition(":")[2][:SHORT]


def _gathered(told: list[SpecChange]) -> list[SpecChange]:
    """Return the changes without the parts of something that came or went as a whole."""
    result: list[SpecChange] = []
    for change in told:
        head = change.key.partition(".")[0]
        if head not in _WHOLE or change.sign == "~":
            result.append(change)
            continue
        # Its first key stands for all of it.
        if not any(c.key == head and c.sign == change.sign for c in result):
            around = change.path[: change.path.index(head) + len(head)]
            result.append(replace(change, key=head, path=around))
    return result


_WHOLE = frozenset({"healthcheck", "build"})

# Fields of models -> keys of the file, where they are not called the same; several: any of them.
_KEYS: dict[str, tuple[str, ...]] = {
    "stop_grace": ("stop_grace_period",),
    "restart": ("restart", "deploy.restart_policy"),
    "resources.limits.cpus": ("deploy.resources.limits.cpus", "cpus", "cpu_quota"),
    "resources.limits.memory": ("deploy.resources.limits.memory", "mem_limit"),
    "resources.limits.pids": ("deploy.resources.limits.pids", "pids_limit"),
    "resources.reservations.cpus": ("deploy.resources.reservations.cpus",),
    "resources.reservations.memory": ("deploy.resources.reservations.memory", "mem_reservation"),
    "no_new_privileges": ("security_opt.no-new-privileges",),
    "seccomp": ("security_opt.seccomp",),
    "apparmor": ("security_opt.apparmor",),
    "logging.driver": ("logging.driver",),
    "logging.max_size": ("logging.options.max-size",),
    "logging.max_files": ("logging.options.max-file",),
    "memory_swap": ("memswap_limit",),
    "partner": ("network_mode.service", "pid.service", "ipc.service"),
    "mode": ("deploy.mode",),
    "replicas": ("deploy.replicas", "scale"),
    "endpoint_mode": ("deploy.endpoint_mode",),
    "deploy_labels": ("deploy.labels",),
    "placement": ("deploy.placement",),
    "update": ("deploy.update_config",),
    "rollback": ("deploy.rollback_config",),
    "update.canary": ("x-corral.canary",),
    "update.blue_green": ("x-corral.update",),
    "update.keep_old": ("x-corral.keep_old",),
    "placement.max_replicas_per_node": ("deploy.placement.max_replicas_per_node",),
    "placement.strategy": ("x-corral.strategy",),
    **{
        name: (f"x-corral.{name}",)
        for name in (
            *("on_unhealthy", "security", "exclusive", "on_reboot"),
            *("schedule", "max_concurrent", "autoscale", "depends_deadline"),
        )
    },
}
_SECONDS = frozenset(
    [
        "stop_grace",
        "interval",
        "timeout",
        "start_period",
        "start_interval",
        "delay",
        "monitor",
        "window",
    ]
)
_NAMED = frozenset({"environment", "labels", "annotations", "build"})
_BYTES = frozenset(["memory", "memory_swap", "shm_size", "max_size"])
# Parts of a service that tasks do not have: another number, place or order keeps them.
_BESIDE = frozenset(
    [
        "pull_policy",
        "mode",
        "replicas",
        "depends_on",
        "depends_deadline",
        "placement",
        "update",
        "rollback",
        "endpoint_mode",
        "attach",
        "deploy_labels",
        "build",
        *("schedule", "max_concurrent", "autoscale"),
    ]
)


def _leaves(service: ServiceSpec) -> Leaves:
    leaves: Leaves = {}
    task = service.task
    written = task.model_dump(mode="json")
    for field, several in _SEVERAL.items():
        written.pop(field)
        for index, one in enumerate(getattr(task, field)):
            key, text, path = several(one, index)
            value = one.model_dump(mode="json")
            number = 1
            while (unique := key if number == 1 else f"{key} ({number})") in leaves:
                number += 1
            leaves[unique] = _Leaf(text, value, (path, field))
    written.pop("image_digest")
    if written["healthcheck"] is None:
        written.pop("healthcheck")
    beside = service.model_dump(mode="json", exclude={"name", "task"})
    beside["deploy_labels"] = beside.pop("labels")
    updates.as_written(beside)
    if beside["build"] is None:
        beside.pop("build")
    if beside["container_name"] is not None:
        leaves["container_name"] = _Leaf(
            beside["container_name"], beside["container_name"], ("container_name",)
        )
    beside.pop("container_name")
    _flatten(leaves, "", written, replaces=True)
    _flatten(leaves, "", beside, replaces=False)
    return leaves


def _flatten(leaves: Leaves, at: str, value: Any, *, replaces: bool) -> None:
    """Note every key of a JSON value under its key in the file; what is empty is not there."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _flatten(leaves, f"{at}.{key}" if at else key, inner, replaces=replaces)
        return
    field = at.rpartition(".")[2]
    if value is None or value in ("", [], {}):
        explicit = value == [] and at in ("command", "entrypoint")
        if not explicit:
            return
    paths = _paths(at)
    head = at.partition(".")[0]
    leaves[paths[0]] = _Leaf(
        _text(field if head not in _NAMED else "", at, value),
        value,
        paths,
        replaces=replaces and head not in _BESIDE,
    )


def _paths(at: str) -> tuple[str, ...]:
    """Return the keys of the file that a field may come from, the usual one first."""
    front = at
    while front:
        if front in _KEYS:
            return tuple(f"{key}{at[len(front) :]}" for key in _KEYS[front])
        front = front.rpartition(".")[0]
    return (at,)


def _text(field: str, at: str, value: Any) -> str:
    head, _, name = at.partition(".")
    if head in _NAMED and name and not isinstance(value, bool):
        return masking.value(name, value if isinstance(value, str) else _listed(value))
    if isinstance(value, list):
        return _listed(list(masking.words(tuple(value))) if _words(value) else value)
    if isinstance(value, (int, float)):
        return _amount(field, value)
    return masking.text(str(value))


def _amount(field: str, value: float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if field in _SECONDS:
        return as_set(value)
    return size(value) if field in _BYTES and value >= 0 else f"{value:g}"


def _words(value: list[Any]) -> bool:
    return all(isinstance(one, str) for one in value)


def _listed(value: Any) -> str:
    if isinstance(value, list):
        if not value:
            return "(none)"
        return " ".join(_quoted(one) for one in value)
    return _quoted(value)


def _quoted(one: Any) -> str:
    if isinstance(one, dict):
        inner = ", ".join(f"{k}: {_quoted(v)}" for k, v in one.items() if v not in (None, "", []))
        return f"{{{inner}}}"
    if isinstance(one, list):
        return ":".join(str(part) for part in one)
    text = str(one)
    return f'"{text}"' if " " in text or not text else text


# what a service has several of


def _port(port: Port, index: int) -> tuple[str, str, str]:
    text = port_text(port)
    return f"ports.{text}", text, f"ports[{index}]"


def port_text(port: Port) -> str:
    """Return a published port as files have it: ``127.0.0.1:8080:80/udp (host)``."""
    address = f"{port.host_ip}:" if port.host_ip else ""
    number = f"{port.published}:" if port.published is not None else ""
    protocol = f"/{port.protocol}" if port.protocol != "tcp" else ""
    mode = " (host)" if port.mode == "host" else ""
    return f"{address}{number}{port.target}{protocol}{mode}"


def _exposed(port: Port, _: int) -> tuple[str, str, str]:
    text = port_text(port)
    return f"expose.{text}", text, "expose"


def _mount(mount: Mount, _: int) -> tuple[str, str, str]:
    source = mount.source or ("a new volume" if mount.type == "volume" else mount.type)
    flags = ":ro" if mount.read_only else ""
    return f"volumes.{mount.target}", f"{source}:{mount.target}{flags}", "volumes"


def _file(kind: str) -> Callable[[FileRef, int], tuple[str, str, str]]:
    def of(ref: FileRef, index: int) -> tuple[str, str, str]:
        version = f" (version {short(ref.content)})" if ref.content else ""
        return f"{kind}.{ref.source}", f"{ref.target}{version}", f"{kind}[{index}]"

    return of


def _attached(attachment: NetworkAttachment, _: int) -> tuple[str, str, str]:
    parts = [attachment.ipv4_address or "", *attachment.aliases]
    key = f"networks.{attachment.network}"
    return key, " ".join(filter(None, parts)) or attachment.network, key


_SEVERAL: dict[str, Callable[[Any, int], tuple[str, str, str]]] = {
    "ports": _port,
    "expose": _exposed,
    "mounts": _mount,
    "secrets": _file("secrets"),
    "configs": _file("configs"),
    "networks": _attached,
}


# networks, volumes, secrets, configs


def _object(section: Section, name: str, old: Any, new: Any, found: _File) -> list[SpecChange]:
    if old == new:
        return []
    base = f"{section}.{name}"
    if old is None or new is None:
        sign: Sign = "-" if new is None else "+"
        at = found.position_of(base) if new is not None else None
        shown = (new or old).name
        texts = (shown, "") if new is None else ("", shown)
        return [SpecChange(section, name, "", sign, texts[0], texts[1], base, at)]
    mine, theirs = old.model_dump(mode="json"), new.model_dump(mode="json")
    result = []
    for field in _both(mine, theirs):
        if mine[field] == theirs[field]:
            continue
        key = "version" if field == "content" else field
        path = base if field == "content" else f"{base}.{key}"
        texts = _shown(field, mine[field]), _shown(field, theirs[field])
        at = found.position_of(path)
        # The tasks are told by ``services``; who mounts a volume of another name is replaced.
        result.append(SpecChange(section, name, key, "~", texts[0], texts[1], path, at))
    return result


def _shown(key: str, value: Any) -> str:
    if key == "content":
        return short(value)
    if value in (None, "", [], {}):
        return ""
    if isinstance(value, dict):
        pairs = masking.environment({k: str(v) for k, v in value.items()})
        return ", ".join(f"{k}={v}" for k, v in pairs.items())
    return _text(key, key, value)
