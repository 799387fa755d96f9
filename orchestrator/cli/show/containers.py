"""A stack's tasks as Compose shows containers: one a name, with Compose's keys. Pure.

Compose makes a container anew under its name, so a name has one. Here the task before may
still end, or is kept for its reason to be seen; ``now`` says which of them a name means.
``corral ps`` shows those, and with ``-a`` the others too, marked. In JSON each row has what
Compose prints, so that ``jq -r .Name`` works, beside the fields of our own.
"""

from __future__ import annotations

import time

from orchestrator.cli.show import times
from specs.kit import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    Row = Mapping[str, Any]

# As specs.states has them, which a list that is to appear at once does not load.
FINAL = frozenset({"complete", "failed", "shutdown", "rejected", "orphaned"})
HEARD = frozenset({"ready", "unready"})
NO_CODE = 1  # for who must have a number: nobody saw how it ended, or it never began


def now(rows: Iterable[Row]) -> frozenset[str]:
    """Return the ids of the tasks their names mean: one each.

    What serves and is to stay, else what is on its way, else what ends; the newest of these. What
    stands by is meant where nothing else of its name is to stay.
    """
    best: dict[object, Row] = {}
    for row in rows:
        known = best.setdefault(row.get("name"), row)
        if _rank(row) > _rank(known):
            best[row.get("name")] = row
    return frozenset(str(row.get("id")) for row in best.values())


def listed(rows: Iterable[Row]) -> frozenset[str]:
    """Return the ids of what is there to stay: what is meant, and what runs beside that.

    An old task beside a canary serves as well, and what stands by is kept on purpose.
    """
    rows = list(rows)
    meant = now(rows)
    tried = {row.get("name") for row in rows if row.get("beside")}
    stay = (row for row in rows if row.get("name") in tried and _rank(row)[2])
    return meant | {str(row.get("id")) for row in stay}


def _rank(row: Row) -> tuple[bool, bool, bool, bool, float, str]:
    live = row.get("state") not in FINAL
    stays = live and not row.get("stopping")
    ready = stays and bool(row.get("ready"))
    serves = stays and row.get("beside") != "stands by"
    return serves, ready, stays, live, float(row.get("created_at") or 0.0), str(row.get("id"))


def ports(row: Row) -> list[str]:
    """Return where it is reached: what has ended holds no port, as in Docker."""
    return [] if row.get("state") in FINAL else [str(port) for port in row.get("ports") or ()]


def as_compose(row: Row, *, project: str, command: str, at: float) -> dict[str, Any]:
    """Return a row with the keys of ``docker compose ps --format json`` beside our own.

    Theirs come last: readers that take no notice of case then have what they know.
    """
    name, state = str(row.get("name") or ""), state_of(row)
    mounts = [str(mount) for mount in row.get("mounts") or ()]
    return {
        **row,
        "ID": row.get("id", ""),
        "Name": name,
        "Names": name,
        "Image": row.get("image", ""),
        "Command": jsontext.shown(command),
        "Project": project,
        "Service": row.get("service", ""),
        "Node": row.get("node", ""),
        "Created": int(row.get("created_at") or 0),
        "CreatedAt": _date(row.get("created_at")),
        "RunningFor": times.since(row.get("created_at"), at),
        "State": state,
        "Status": _status(row, state, at),
        "Health": _health(row),
        "ExitCode": code_of(row) if state in ("exited", "restarting") else 0,
        "Publishers": [publisher(port) for port in ports(row)],
        "Ports": ", ".join(ports(row)),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(_labels(row).items())),
        "Networks": ",".join(row.get("networks") or ()),
        "Mounts": ",".join(mounts),
        "LocalVolumes": str(sum(not mount.startswith("/") for mount in mounts)),
        "Size": "0B",
    }


def _labels(row: Row) -> Mapping[str, str]:
    return row.get("labels") or {}


def _date(moment: Any) -> str:
    """Return a time as Docker writes it: ``2026-01-31 12:00:00 +0000 UTC``."""
    known = isinstance(moment, int | float) and moment
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(moment)) if known else ""


def facts(row: Row) -> dict[str, Any]:
    """Return what ``ps --filter`` looks at, by Docker's keys."""
    image = str(row.get("image") or "")
    code = row.get("exit_code")
    return {
        "id": row.get("id", ""),
        "name": row.get("name", ""),
        "service": row.get("service", ""),
        "node": row.get("node", ""),
        "label": _labels(row),
        "health": row.get("health", ""),
        "status": words(row),
        "exited": "" if code is None or state_of(row) != "exited" else int(code),
        "ancestor": {image, image.partition("@")[0], image.partition("@")[0].rpartition(":")[0]},
        "network": (*(row.get("networks") or ()), *(row.get("network_ids") or ())),
        "volume": row.get("mounts") or (),
    }


# Docker's states beside those of state_of.
STATES = frozenset({"created", "running", "paused", "restarting", "removing", "exited", "dead"})


def words(row: Row) -> frozenset[str]:
    """Return every word that --status may use for a task: our state, and Docker's."""
    found = {str(row.get("state")), state_of(row)}
    if row.get("stopping") and row.get("state") not in FINAL:
        found.add("removing")
    if row.get("state") in ("failed", "rejected", "orphaned"):
        found.add("dead")
    if row.get("state") == "prepared":
        found.add("created")
    if row.get("state") == "starting":
        found.add("restarting")
    if row.get("paused"):
        found.discard("running")
    return frozenset(found)


def state_of(row: Row) -> str:
    """Return the state in Docker's words: created, running, paused, restarting, exited."""
    state = row.get("state")
    if state in FINAL:
        return "exited"
    if row.get("paused"):
        return "paused"
    if row.get("started_at") and row.get("finished_at") is None and row.get("exit_code") is None:
        return "running"
    if state == "running" and row.get("ready"):
        return "running"
    return "restarting" if row.get("started_at") else "created"


def code_of(row: Row) -> int:
    """Return the exit code of what has ended: its own, or NO_CODE; never 0 by default."""
    code = row.get("exit_code")
    if isinstance(code, int):
        return code
    return 0 if row.get("state") == "complete" else NO_CODE


def no_code(row: Row) -> str:
    """Return why what has ended has no exit code of its own, "" where it has one."""
    if isinstance(row.get("exit_code"), int) or row.get("state") == "complete":
        return ""
    return "unknown" if row.get("started_at") else "never began"


def _health(row: Row) -> str:
    health = str(row.get("health") or "")
    return "" if health == "none" else health


def _status(row: Row, state: str, at: float) -> str:
    """Return what Docker says of it: ``Up 3 min (healthy)``, ``Exited (4) 2 s ago``.

    Of a node that is not heard nobody knows: then it is what the table says.
    """
    if state != "exited" and row.get("node_status", "ready") not in HEARD:
        return str(row.get("status") or row.get("node_status"))
    code = no_code(row) or code_of(row)
    ended = times.since(row.get("finished_at"), at)
    match state:
        case "running":
            health = _health(row)
            how = f" (health: {health})" if health == "starting" else f" ({health})"
            up = times.since(row.get("started_at"), at).removesuffix(" ago")
            return f"Up {up}".rstrip() + (how if health else "")
        case "paused":
            up = times.since(row.get("started_at"), at).removesuffix(" ago")
            return f"Up {up} (Paused)"
        case "exited":
            return f"Exited ({code}) {ended}".rstrip()
        case "restarting":
            return f"Restarting ({code}) {ended}".rstrip()
        case _:
            return "Created"


def publisher(text: str) -> dict[str, Any]:
    """Return a port as Compose has it, from ``0.0.0.0:8080->80/tcp`` or ``80/tcp``."""
    outside, arrow, inside = text.rpartition("->")
    target, _, protocol = inside.partition("/")
    host, _, published = outside.rpartition(":")
    return {
        "URL": host.strip("[]") if arrow else "",
        "TargetPort": _number(target),
        "PublishedPort": _number(published) if arrow else 0,
        "Protocol": protocol or "tcp",
    }


def _number(text: str) -> int | str:
    """Return a port; a range stays the text it is."""
    return int(text) if text.isdecimal() else text
