"""What two versions of corral may say to each other, and what becomes of what one cannot read.

The version is that of the wire and of the agent's records (``specs.wire.PROTOCOL``). One release
apart works both ways: who is newer speaks as the older one does (:func:`encode`), by ``SINCE``,
and reads what it said (:func:`decode`). In what is kept or reported, fields nobody here knows
are left out and named (``Reading.ignored``), and of many objects only the one that makes no sense
is (``Reading.lost``); the caller keeps the original. In a spec to execute nothing is left out:
``NEEDS`` says which of its fields a version does not honour, and the controller places by it.

A new field in anything on the wire or in a record gets a line in ``SINCE``; a test asks for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import ValidationError

from specs.base import Model
from specs.wire import KINDS, PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from specs.stack import TaskSpec

HEADER = "Corral-Wire"  # of the controller's requests: the version it speaks; none = 1
OLDEST = PROTOCOL - 1  # what is spoken besides our own

# model -> field -> the version it came with
SINCE: dict[str, dict[str, int]] = {
    "Assignment": {
        "after": 2,
        "admitted": 2,
        "paused": 2,
        "attach": 2,
        "release": 2,
        "spec_hash": 2,
        "oneoff": 2,
        "volume_options": 2,
        "elsewhere": 2,
        "fresh_volumes": 2,
        "partner": 2,
    },
    "Endpoint": {"share": 2},
    "Hello": {"signing_request": 2, "revision": 2, "stacks": 2, "heartbeat": 2},
    "Instructions": {"protocol": 2, "revision": 2},
    "LogLine": {"place": 2},
    "NetworkState": {"more_pools": 2, "fenced": 2},
    "NodeSelf": {"home": 2, "more_ranges": 2},
    "Objects": {"stacks": 2, "releases": 2, "slots": 2},
    "NodeFacts": {"wire": 2, "unread": 2, "routes": 2, "build": 2, "cramped": 2},
    "Peer": {"mtu": 2, "address": 2, "host_key": 2},
    "Report": {"trouble": 2, "room": 2, "mtu": 2, "clock": 2, "unread": 2, "volumes": 2},
    "Record": {
        "wire": 2,
        "unread": 2,
        "doing": 2,
        "arrived": 2,
        "held_until": 2,
        "beside": 2,
        "alone": 2,
        "paused": 2,
        "hooked": 2,
        "hook_failed": 2,
        "hooked_at": 2,
        "pre_stop": 2,
        "crowded": 2,
        "unasked": 2,
        "lease": 2,
        "lease_wait": 2,
    },
    "TaskSpec": {
        "no_new_privileges": 2,
        "seccomp": 2,
        "apparmor": 2,
        "on_reboot": 2,
        "exclusive": 2,
        "security": 2,
        "pid": 2,
        "ipc": 2,
        "uts": 2,
        "cpuset": 2,
        "cpu_shares": 2,
        "memory_swap": 2,
        "platform": 2,
        "links": 2,
        "partner": 2,
        "post_start": 2,
        "pre_stop": 2,
    },
    "Mount": {"tmpfs_options": 2, "recursive": 2},
    "VolumeSpec": {"options": 2, "relative": 2},
    "TaskStatus": {
        "doing": 2,
        "arrived": 2,
        "retry_in": 2,
        "held": 2,
        "paused": 2,
        "unnamed": 2,
        "crowded": 2,
        "unasked": 2,
        "command": 2,
    },
}

# Fields of a TaskSpec whose loss changes what runs: version, and how the user's file says it.
NEEDS: dict[str, tuple[int, str]] = {
    "no_new_privileges": (2, "security_opt: no-new-privileges"),
    "seccomp": (2, "security_opt: seccomp"),
    "security": (2, "x-corral.security"),
    "pid": (2, "pid: host"),
    "ipc": (2, "ipc: host"),
    "uts": (2, "uts: host"),
    "cpuset": (2, "cpuset"),
    "memory_swap": (2, "memswap_limit"),
    "partner": (2, "network_mode: service:"),
    "post_start": (2, "post_start"),
    "pre_stop": (2, "pre_stop"),
    "exclusive": (2, "x-corral.exclusive"),
}

# Where one unreadable object is left out instead of the whole message: kind -> paths to mappings.
_SEPARATE: dict[str, tuple[tuple[str, ...], ...]] = {
    "Report": (("tasks",),),
    "Instructions": tuple(("put", kind) for kind in KINDS if kind != "contents"),
}
_ROUNDS = 8  # an error may hide others, but not many layers of them

M = TypeVar("M", bound=Model)


class Unreadable(ValueError):
    """Bytes of which nothing can be made; the message says why."""


@dataclass(frozen=True)
class Reading(Generic[M]):
    """What was made of some bytes: ``ignored`` fields by path, ``lost`` objects with the reason."""

    value: M
    ignored: tuple[tuple[str, ...], ...] = ()
    lost: tuple[tuple[tuple[str, ...], str], ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing was left out."""
        return not self.ignored and not self.lost

    def notes(self) -> tuple[str, ...]:
        """Return what was left out, for people."""
        return (
            *(f"unknown field {'.'.join(path)}" for path in self.ignored),
            *(f"{'.'.join(path)}: {why}" for path, why in self.lost),
        )


def decode(model: type[M], data: bytes) -> Reading[M]:
    """Read what is kept or was reported, leaving out what cannot be read. Raises Unreadable."""
    try:
        return Reading(model.model_validate_json(data))
    except ValidationError:
        pass
    try:
        found = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise Unreadable(_no_json(data, error)) from None
    if not isinstance(found, dict):
        raise Unreadable(f"it is {type(found).__name__}, not an object")
    _as_now(model, found)
    ignored: list[tuple[str, ...]] = []
    lost: list[tuple[tuple[str, ...], str]] = []
    for _ in range(_ROUNDS):
        try:
            # As JSON again: strings become enumerations and lists tuples there only.
            return Reading(
                model.model_validate_json(json.dumps(found)), tuple(ignored), tuple(lost)
            )
        except ValidationError as error:
            _leave_out(model, found, error, ignored, lost)
    raise Unreadable("too much of it is unknown")


def _no_json(data: bytes, error: Exception) -> str:
    if not data.strip():
        return "it is empty"
    if not data.strip(b"\0"):
        return "it is zeros only"
    if isinstance(error, UnicodeDecodeError):
        return "it is no text (not UTF-8)"
    return "it is no JSON"


def _leave_out(
    model: type[Model],
    found: dict[str, Any],
    error: ValidationError,
    ignored: list[tuple[str, ...]],
    lost: list[tuple[tuple[str, ...], str]],
) -> None:
    """Take out of ``found`` what the errors are about. Raises Unreadable where that is not all."""
    for one in error.errors(include_url=False, include_input=False, include_context=False):
        where = tuple(str(part) for part in one["loc"])
        if one["type"] == "extra_forbidden" and _take_out(found, one["loc"]):
            ignored.append(where)
            continue
        for prefix in _SEPARATE.get(model.__name__, ()):
            if where[: len(prefix)] == prefix and len(where) > len(prefix):
                key = one["loc"][: len(prefix) + 1]
                if _take_out(found, key):
                    rest = ".".join(where[len(prefix) + 1 :])
                    lost.append((where[: len(prefix) + 1], f"{rest}: {one['msg']}"))
                break  # two errors in one object: it is out already
        else:
            raise Unreadable(f"{'.'.join(where)}: {one['msg']}")


def _take_out(found: Any, path: Iterable[Any]) -> bool:
    *way, last = path
    for step in way:
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError):
            return False
    if isinstance(found, dict) and last in found:
        del found[last]
        return True
    return False


def ignored_of(reading: Reading[Any], *prefix: str) -> tuple[str, ...]:
    """Return the fields below ``prefix`` that were left out."""
    return tuple(
        ".".join(path[len(prefix) :])
        for path in reading.ignored
        if path[: len(prefix)] == prefix and len(path) > len(prefix)
    )


# The version before ours.


def encode(model: Model, version: int) -> bytes:
    """Return the JSON of a message as ``version`` of corral understands it."""
    if version >= PROTOCOL:
        return model.encode()
    return json.dumps(_plain(model, version), separators=(",", ":")).encode()


def _plain(value: Any, version: int) -> Any:
    if isinstance(value, Model):
        return _as_then(value, _fields(value, version), version)
    if isinstance(value, dict):
        return {str(key): _plain(one, version) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one, version) for one in value]
    return value


def _fields(model: Model, version: int) -> dict[str, Any]:
    since: Mapping[str, int] = SINCE.get(type(model).__name__, {})
    found = {}
    for name, field in type(model).model_fields.items():
        if since.get(name, 1) > version:
            continue
        value = getattr(model, name)
        if field.is_required() or value != field.get_default(call_default_factory=True):
            found[name] = _plain(value, version)
    return found


def _as_then(model: Model, fields: dict[str, Any], version: int) -> dict[str, Any]:
    """Say in an older version's words what it had other words for."""
    kind: Any = model
    if version < 2 and type(model).__name__ == "Hello" and kind.signing_request:
        fields["request"] = kind.signing_request
    if version < 2 and type(model).__name__ == "TaskSpec":
        # It knew two answers only, and restarted where the file said nothing.
        fields["on_unhealthy"] = "restart" if kind.restarts_unhealthy else "keep"
    if type(model).__name__ == "Instructions" and "remove" in fields:
        since = SINCE.get("Objects", {})
        removed = fields["remove"].items()
        fields["remove"] = {kind: ks for kind, ks in removed if since.get(kind, 1) <= version}
    return fields


def _as_now(model: type[Model], found: dict[str, Any]) -> None:
    """Say in our words what an older version had other words for (in place)."""
    if model.__name__ == "Hello" and "request" in found:
        found.setdefault("signing_request", found.pop("request"))
    _specs_as_now(found)


def _specs_as_now(found: Any) -> None:
    if isinstance(found, list):
        for one in found:
            _specs_as_now(one)
    elif isinstance(found, dict):
        if "image" in found and isinstance(options := found.get("security_opt"), list):
            known = {o: o.replace("=", ":").partition(":") for o in options if isinstance(o, str)}
            for option, (name, _, value) in known.items():
                if name == "no-new-privileges" and value in ("", "true", "false"):
                    found["no_new_privileges"] = value != "false"
                    options.remove(option)
                elif name == "seccomp" and value == "unconfined":
                    found["seccomp"] = value
                    options.remove(option)
            if not options:
                del found["security_opt"]
        for one in found.values():
            _specs_as_now(one)


# What a node must understand.


def needs(spec: TaskSpec) -> tuple[tuple[int, str], ...]:
    """Return which versions a task asks of its node, with the words of the key that does."""
    fields = type(spec).model_fields
    return tuple(
        wanted for name, wanted in NEEDS.items() if getattr(spec, name) != fields[name].default
    )


def unfit(spec: TaskSpec, version: int) -> str:
    """Return what of a spec a node of that version does not honour; empty = it honours all."""
    return ", ".join(words for since, words in needs(spec) if since > version)


def refusal(name: str, version: int) -> str:
    """Return why no session is held with an agent of that version; empty = one is."""
    if OLDEST <= version <= PROTOCOL + 1:
        return ""
    return (
        f"node {name} speaks version {version} of the wire, this controller {PROTOCOL}:"
        " more than one release lies between; its containers run on as they are"
    )
