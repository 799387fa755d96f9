"""What `corral doctor` makes of the facts it gathered: a line each, with evidence and fix. Pure.

Facts are the API's answers as they are; what could not be asked is missing, and that is a finding
of whoever asked. Words of people's own (reasons of releases and tasks) are ``private``: shown on
the terminal, and left out of a bundle that is given to others.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

OK, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"
LEVELS = (ERROR, WARNING, NOTE, OK)
DAY = 86400.0
OLD_BACKUP = 8 * DAY
CLOCK_WARNING, CLOCK_ERROR = 2.0, 30.0  # seconds two clocks may differ
LATE = 0.5  # seconds the event loop may come late, but for
SELDOM = 0.01  # of the looks
RESTARTS = 5  # of one task that is not ready
FULL = 0.9
SMALL_MTU = 1280
OF_THE_SYSTEM = ("/etc/", "/proc", "/sys", "/dev", "/run/", "/var/run/", "/usr/", "/lib/modules")


class Line:
    """One finding."""

    __slots__ = ("evidence", "fix", "level", "private", "what")

    def __init__(
        self, level: str, what: str, evidence: str, fix: str = "", *, private: bool = False
    ) -> None:
        self.level = level
        self.what = what
        self.evidence = evidence
        self.fix = fix
        self.private = private

    def shared(self) -> dict[str, str]:
        """Return it as a bundle has it."""
        said = "not in a bundle" if self.private else self.evidence
        return {"level": self.level, "what": self.what, "evidence": said, "fix": self.fix}

    def whole(self) -> dict[str, str]:
        """Return all of it."""
        return {**self.shared(), "evidence": self.evidence}


def diagnose(facts: Mapping[str, Any]) -> list[Line]:
    """Return the findings, the worst first; what is in order is said, too."""
    found: list[Line] = []
    for look in (
        _unasked, _versions, _state, _records, _backups, _nodes, _clocks, _mtu, _disk,
        _loop, _stacks, _tasks, _binds,
    ):  # fmt: skip
        found += look(facts)
    return sorted(found, key=lambda line: LEVELS.index(line.level))


def figures(text: str) -> dict[str, float]:
    """Return the samples of an exposition by name and labels; lines of no sample are left out."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name and not line.startswith("#"):
            try:
                found[name] = float(value)
            except ValueError:
                continue
    return found


def _unasked(facts: Mapping[str, Any]) -> Iterator[Line]:
    for what, why in (facts.get("unasked") or {}).items():
        level = ERROR if what == "controller" else WARNING
        fix = "corral controller status; corral controller start" if level == ERROR else ""
        yield Line(level, what, why, fix)


def _versions(facts: Mapping[str, Any]) -> Iterator[Line]:
    theirs, mine = (facts.get("version") or {}).get("version", ""), facts.get("corral", "")
    behind = [
        f"{row['name']} {row.get('version')} ({row['age']})"
        for row in facts.get("nodes") or ()
        if row.get("age")
    ]
    if theirs and mine and theirs != mine:
        yield Line(
            WARNING, "versions", f"controller {theirs}, this command {mine}", "corral upgrade"
        )
    if behind:
        yield Line(WARNING, "versions", ", ".join(behind), "corral upgrade")
    if theirs == mine and not behind and theirs:
        yield Line(OK, "versions", f"all have {theirs}")


def _state(facts: Mapping[str, Any]) -> Iterator[Line]:
    behind = (facts.get("state") or {}).get("behind")
    undecided = facts.get("undecided")
    if behind:
        yield Line(ERROR, "state", str(behind), "corral state adopt, or corral state discard")
    elif undecided:
        yield Line(ERROR, "state", str(undecided), "corral state")
    elif facts.get("state") is not None:
        yield Line(OK, "state", "as new as what runs")


def _records(facts: Mapping[str, Any]) -> Iterator[Line]:
    check = facts.get("check")
    if check is None:
        return
    for row in check.get("findings") or ():
        level = ERROR if row.get("severity") == "error" else WARNING
        fix = "corral backup ls, corral restore" if level == ERROR else "corral state check"
        yield Line(level, "records", f"{row.get('key')} {row.get('what')}", fix)
    if not check.get("findings"):
        yield Line(OK, "records", f"{check.get('records')} are in order")


def _backups(facts: Mapping[str, Any]) -> Iterator[Line]:
    known = facts.get("backups")
    if known is None:
        return
    make = "corral backup --schedule '0 3 * * *' --to DIR on another disk"
    last, now = float(known.get("last_at") or 0.0), float(facts.get("now") or 0.0)
    if known.get("failure"):
        yield Line(
            ERROR, "backups", f"the one that was due: {known['failure']}", "corral backup ls"
        )
    elif not last:
        yield Line(WARNING, "backups", "none was made here", make)
    elif now - last > OLD_BACKUP:
        yield Line(WARNING, "backups", f"the newest is {(now - last) / DAY:.0f} days old", make)
    else:
        yield Line(OK, "backups", f"the newest is {max(now - last, 0) / 3600:.0f} hours old")
    if known.get("cron") and not known.get("encrypted"):
        where = f"{known.get('to')} has them in the clear"
        yield Line(NOTE, "backups", where, "--schedule again, with a passphrase")


def _nodes(facts: Mapping[str, Any]) -> Iterator[Line]:
    rows = facts.get("nodes")
    if rows is None:
        return
    ready = 0
    for row in rows:
        name = str(row.get("name"))
        if row.get("status") == "ready":
            ready += 1
        else:
            said = f"{row.get('status')}: {row.get('reason') or 'no reason is known'}"
            yield Line(ERROR, f"node {name}", said, f"corral node inspect {name}")
        kept = row.get("facts") or {}
        for one in kept.get("missing") or ():
            yield Line(WARNING, f"node {name}", str(one), "what needs it is refused there")
        for one in dict.fromkeys((*(kept.get("warnings") or ()), *(row.get("warnings") or ()))):
            yield Line(WARNING, f"node {name}", str(one))
        for one in kept.get("unread") or ():
            yield Line(WARNING, f"node {name}", f"cannot read {one}", "corral upgrade")
        if row.get("availability") not in (None, "active"):
            yield Line(
                NOTE, f"node {name}", str(row["availability"]), f"corral node activate {name}"
            )
    if rows and ready == len(rows):
        yield Line(OK, "nodes", f"{ready} of {len(rows)} are ready")
    if (facts.get("figures") or {}).get("corral_brake"):
        said = "most nodes are silent: nothing they ran is replaced"
        yield Line(ERROR, "brake", said, "is the network of the controller's machine up?")


def _clocks(facts: Mapping[str, Any]) -> Iterator[Line]:
    worst = 0.0
    for name, found in sorted((facts.get("node_figures") or {}).items()):
        theirs, ours = found.get("corral_time_seconds"), found.get("corral_asked_seconds")
        if theirs is None or ours is None:
            continue
        apart = theirs - ours
        worst = max(worst, abs(apart))
        if abs(apart) > CLOCK_WARNING:
            level = ERROR if abs(apart) > CLOCK_ERROR else WARNING
            said = f"its clock is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} ours"
            yield Line(level, f"node {name}", said, "have both follow a time server (chrony)")
    if worst and worst <= CLOCK_WARNING:
        yield Line(OK, "clocks", f"at most {worst:.1f} s apart")


def _mtu(facts: Mapping[str, Any]) -> Iterator[Line]:
    sizes = {str(row["name"]): int(row.get("mtu") or 0) for row in facts.get("nodes") or ()}
    sizes = {name: size for name, size in sizes.items() if size}
    if len(sizes) < 2:
        return
    least = min(sizes.values())
    if len(set(sizes.values())) > 1:
        few = ", ".join(name for name, size in sizes.items() if size == least)
        said = (
            f"{few} has {least}, others up to {max(sizes.values())}: all networks keep to {least}"
        )
        yield Line(NOTE, "mtu", said, "give every machine's network the same")
    elif least < SMALL_MTU:
        yield Line(
            WARNING, "mtu", f"{least} is small for IPv6", "a larger one between the machines"
        )
    else:
        yield Line(OK, "mtu", f"{least} everywhere")


def _disk(facts: Mapping[str, Any]) -> Iterator[Line]:
    disk = facts.get("disk")
    if not disk or not disk["total"]:
        return
    used = 1 - disk["free"] / disk["total"]
    said = f"{disk['path']} is {used:.0%} full"
    if used > FULL:
        yield Line(WARNING, "disk", said, "corral down --rmi, corral volume ls, or a larger disk")
    else:
        yield Line(OK, "disk", said)


def _loop(facts: Mapping[str, Any]) -> Iterator[Line]:
    own = {"the controller": facts.get("figures") or {}}
    for name, found in {**own, **(facts.get("node_figures") or {})}.items():
        looks = found.get("corral_loop_lag_seconds_count", 0.0)
        fine = found.get(f'corral_loop_lag_seconds_bucket{{le="{LATE}"}}', looks)
        if looks and (looks - fine) / looks > SELDOM and looks - fine > 2:
            said = f"{name}: late by more than {LATE} s in {looks - fine:.0f} of {looks:.0f} looks"
            yield Line(WARNING, "load", said, "a machine with less on it, or more processors")


def _stacks(facts: Mapping[str, Any]) -> Iterator[Line]:
    rows = facts.get("stacks")
    if rows is None:
        return
    bad = [row for row in rows if row.get("status") in ("degraded", "failed")]
    for row in bad:
        name = str(row.get("name"))
        said = f"{row['status']}, {row.get('tasks')}: {row.get('reason') or ''}".rstrip(": ")
        yield Line(WARNING, f"stack {name}", said, f"corral -p {name} ps -a", private=True)
    if not bad:
        yield Line(OK, "stacks", f"{len(rows)}, none is degraded")


def _tasks(facts: Mapping[str, Any]) -> Iterator[Line]:
    for stack, rows in sorted((facts.get("tasks") or {}).items()):
        for row in rows:
            if int(row.get("restarts") or 0) >= RESTARTS and not row.get("ready"):
                said = f"{row.get('restarts')} restarts on {row.get('node')}, and not ready"
                name, service = str(row.get("name")), str(row.get("service"))
                yield Line(ERROR, name, said, f"corral -p {stack} logs --tail 50 {service}")


def _binds(facts: Mapping[str, Any]) -> Iterator[Line]:
    """Name paths of nodes that a service finds wherever it is placed, or does not."""
    if len(facts.get("nodes") or ()) < 2:
        return
    for stack in (facts.get("export") or {}).get("stacks") or ():
        for service in stack.get("services") or ():
            paths = sorted(set(_unpinned(service)))
            if paths and not service.get("constraints"):
                name = f"{stack.get('name')}/{service.get('name')}"
                said = f"binds {', '.join(paths)} of whichever node it is on"
                fix = "a named volume, or deploy.placement.constraints"
                yield Line(NOTE, name, said, fix)


def _unpinned(service: Mapping[str, Any]) -> Iterable[str]:
    for mount in service.get("mounts") or ():
        source = str(mount.get("source") or "")
        if mount.get("type") == "bind" and not f"{source}/".startswith(OF_THE_SYSTEM):
            yield source
