"""`corral node ls|inspect|add|replace|rm|label|set|pause|drain|activate`: the machines."""

from __future__ import annotations

import sys

from orchestrator.cli.errors import ERROR, USAGE, CliError
from orchestrator.cli.show import filters, formats, table, undecided
from orchestrator.client.errors import ApiRefusal
from orchestrator.client.http import quote
from specs.kit.amounts import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from orchestrator.cli.session import Invocation
    from orchestrator.client.http import Stream

FILTERS = ("name", "id", "label", "status", "availability", "address", "version")
SILENCE = 180.0  # seconds a step of node add may take without a word (packages, transfers)


def describe(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    make = kinds.add_parser

    sub = make("ls", help="list nodes")
    sub.add_argument("-q", "--quiet", action="store_true", help="only names")
    formats.describe(sub)
    filters.describe(sub, FILTERS)

    sub = make("inspect", help="everything about a node")
    sub.add_argument("names", nargs="+", metavar="NODE")
    sub.add_argument("-f", "--format", default="pretty", type=formats.Format, metavar="FORMAT")
    sub.add_argument("--pretty", action="store_true", help="lines for people, as without it")

    sub = make("add", help="join a machine over SSH")
    _describe_machine(sub)
    sub.add_argument("--name", help="its name in the cluster (default: its host name)")
    sub.add_argument("--label", "-l", action="append", default=[], metavar="KEY=VALUE")

    sub = make("replace", help="have a new machine take the place of a lost one")
    sub.add_argument("replaces", metavar="NODE")
    _describe_machine(sub)

    sub = make("rm", help="take a node out of the cluster and clean it")
    sub.add_argument("names", nargs="+", metavar="NODE")
    sub.add_argument("-f", "--force", action="store_true", help="also if it cannot be reached")

    sub = make("label", help="set labels (KEY=VALUE) or remove them (KEY-)")
    sub.add_argument("name", metavar="NODE")
    sub.add_argument("labels", nargs="+", metavar="KEY=VALUE|KEY-")

    sub = make("set", help="change how a node is reached")
    sub.add_argument("name", metavar="NODE")
    sub.add_argument(
        "--underlay-addr", metavar="ADDRESS", required=True, help="how other nodes reach it"
    )

    for word, text in (
        ("pause", "place nothing new on it"),
        ("drain", "move its tasks elsewhere"),
        ("activate", "use it again"),
    ):
        sub = make(word, help=text)
        sub.add_argument("names", nargs="+", metavar="NODE")
        if word == "drain":
            sub.add_argument("--no-wait", action="store_true", help="do not wait until it is empty")
            sub.add_argument("-t", "--timeout", type=float, metavar="S", help="wait at most this")


def _describe_machine(sub: argparse.ArgumentParser) -> None:
    """Take where a machine is, who may log in, and how other nodes reach it."""
    sub.add_argument("address", metavar="USER@HOST[:PORT]")
    sub.add_argument("--identity", "-i", metavar="FILE", help="private key to log in with")
    sub.add_argument("--host-key", metavar="SHA256:...", help="fingerprint the host must have")
    sub.add_argument("--underlay-addr", metavar="ADDRESS", help="how other nodes reach it")


def run(args: argparse.Namespace, session: Invocation) -> int:
    does = {
        "ls": _ls,
        "inspect": _inspect,
        "add": _add,
        "replace": _replace,
        "rm": _rm,
        "label": _label,
        "set": _set,
    }
    return does.get(args.action, _availability)(args, session)


def _label(args: argparse.Namespace, session: Invocation) -> int:
    body = {"labels": label_changes(args.labels)}
    _print_labels(session.client.request("PATCH", _path(args.name), body=body))
    return 0


def _set(args: argparse.Namespace, session: Invocation) -> int:
    from orchestrator.cli import said  # lists need none of it

    session.client.request("PATCH", _path(args.name), body={"underlay": args.underlay_addr})
    said.done(f"{args.name}: other nodes reach it at {args.underlay_addr}")
    return 0


def _availability(args: argparse.Namespace, session: Invocation) -> int:
    from orchestrator.cli import said  # lists need none of it

    wish = {"activate": "active"}.get(args.action, args.action)
    for name in args.names:
        session.client.request("PATCH", _path(name), body={"availability": wish})
        said.done(f"{name}: {wish}")
    if wish != "drain" or args.no_wait:
        return 0
    from orchestrator.cli.show import draining

    return max(draining.wait(session, name, args.timeout) for name in args.names)


def _path(name: str) -> str:
    return f"/v1/nodes/{quote(name)}"


def label_changes(words: list[str]) -> dict[str, str | None]:
    """Return what to set and (None) what to remove. Raises CliError."""
    changes: dict[str, str | None] = {}
    for word in words:
        key, mark, value = word.partition("=")
        if mark and key:
            changes[key] = value
        elif not mark and len(word) > 1 and word.endswith("-"):
            changes[word[:-1]] = None
        else:
            raise CliError(
                f"{word!r} is neither KEY=VALUE nor KEY-", hint="zone=a sets, zone- removes", code=2
            )
    return changes


def _labels(row: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((row.get("labels") or {}).items()))


def _print_labels(row: dict[str, Any] | None) -> None:
    if row:
        from orchestrator.cli import said  # lists need none of it

        said.done(f"{row.get('name')}: {_labels(row) or 'no labels'}")


def _fits(row: dict[str, Any], wanted: dict[str, list[str]]) -> bool:
    return filters.keeps(wanted, {**row, "label": row.get("labels") or {}})


def _ls(args: argparse.Namespace, session: Invocation) -> int:
    wanted = filters.parse(args.filter, FILTERS)
    rows = sorted(
        (
            row
            for row in undecided.listed(session.client, "nodes", "/v1/nodes")
            if _fits(row, wanted)
        ),
        key=lambda row: str(row.get("name")),
    )
    if args.quiet:
        table.show("\n".join(row["name"] for row in rows))
    else:
        formats.show(args.format, [as_docker(row) for row in rows], lambda: as_table(rows))
    return 0


def as_docker(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the keys of ``docker node ls --format json`` beside our own."""
    return {
        **row,
        "ID": row.get("id", ""),
        "Hostname": row.get("name", ""),
        "Name": row.get("name", ""),
        "Status": str(row.get("status", "")).capitalize(),
        "Availability": str(row.get("availability", "")).capitalize(),
        "Labels": _labels(row),
    }


def as_table(rows: list[dict[str, Any]]) -> str:
    """Return the table of `node ls`; a reason stands behind the status."""
    lines = []
    for row in rows:
        status = str(row.get("status", ""))
        if row.get("reason"):
            status += f": {row['reason']}"
        lines.append(
            (
                row.get("name", ""),
                row.get("address") or "local",
                row.get("availability", ""),
                row.get("tasks", 0),
                f"{float(row.get('cpus') or 0.0):g}",
                size(float(row.get("memory") or 0)),
                f"{row.get('version', '')}{f' ({age})' if (age := row.get('age')) else ''}",
                _labels(row),
                status,
            )
        )
    return table.render(
        (
            "NAME",
            "ADDRESS",
            "AVAILABILITY",
            "TASKS",
            "CPUS",
            "MEMORY",
            "VERSION",
            "LABELS",
            "STATUS",
        ),
        lines,
    )


def _inspect(args: argparse.Namespace, session: Invocation) -> int:
    for name in args.names:
        row = session.client.get(_path(name))
        if args.format.kind != "table":
            formats.show(args.format, [as_docker(row)], str)
            continue
        facts = row.get("facts") or {}
        print(f"{row.get('name')}  {row.get('status')}" + _because(row))
        for key, value in (
            ("id", row.get("id")),
            ("address", row.get("address") or "local"),
            ("availability", row.get("availability")),
            ("labels", _labels(row)),
            ("tasks", row.get("tasks")),
            ("cpus", row.get("cpus")),
            ("memory", size(float(row.get("memory") or 0))),
            *((key, _flat(value)) for key, value in facts.items() if key != "images"),
        ):
            if value not in (None, ""):
                print(f"  {key}: {table.printable(str(value))}")
        for warning in row.get("warnings") or ():
            print(f"  warning: {table.printable(str(warning))}")
    return 0


def _because(row: dict[str, Any]) -> str:
    return f" ({row['reason']})" if row.get("reason") else ""


def _flat(value: Any) -> Any:
    return ", ".join(str(item) for item in value) if isinstance(value, list | tuple) else value


def _add(args: argparse.Namespace, session: Invocation) -> int:
    from orchestrator.cli.pairs import pairs  # lists need none of it

    wishes = {"labels": pairs(args.label, "--label"), "name": args.name}
    return _join(args, session, f"node add {args.address}", wishes)


def _replace(args: argparse.Namespace, session: Invocation) -> int:
    what = f"node replace {args.replaces} {args.address}"
    code = _join(args, session, what, {"replaces": args.replaces})
    if code == 0:
        from orchestrator.cli import said  # lists need none of it

        for row in session.client.get("/v1/volumes")["volumes"]:
            if row["node"] == args.replaces and row["reason"]:
                text = table.printable(f"volume {row['name']}: {row['reason']}")
                said.tell(f"  warning: {text}", said.WARNING)
    return code


def _join(args: argparse.Namespace, session: Invocation, what: str, wishes: dict[str, Any]) -> int:
    """Join the machine; ``wishes``: what is asked for of it beside how it is reached."""
    body: dict[str, Any] = {"address": args.address}
    if args.identity:
        # The controller reads the key, in its own folder: it needs the whole path.
        import os

        if session.client.ssh and not args.identity.startswith("/"):
            raise CliError(
                f"-i {args.identity}: the key is read where the controller runs",
                hint=f"give its path on {session.client.ssh.host}, from /",
                code=USAGE,
            )
        body["identity"] = os.path.abspath(os.path.expanduser(args.identity))
    wishes = {**wishes, "host_key": args.host_key, "underlay": args.underlay_addr}
    body |= {key: value for key, value in wishes.items() if value}
    from orchestrator.cli import said
    from orchestrator.cli.show import steps
    from orchestrator.embedded import daemons

    # The second machine may be added before anything was deployed: this one starts the cluster.
    daemons.ensure(session.client, say=said.tell)
    try:
        code, end = steps.follow(_open_add(session, body), what)
    except ApiRefusal as exc:
        shown = [p["message"] for p in exc.problems if p.get("code") == "host-key-unknown"]
        if not shown:
            raise
        code, end = ERROR, {"message": str(exc), "hint": exc.hint, "host_key": shown[0]}
    print_ = str(end.get("host_key") or "")
    if code == 0 or not print_ or "host_key" in body:
        if code and print_:
            steps.failed(what, end)
        return code
    if not _confirmed(end, print_):
        steps.failed(what, end)
        return ERROR
    return steps.follow(_open_add(session, {**body, "host_key": print_}), what)[0]


def _open_add(session: Invocation, body: dict[str, Any]) -> Stream:
    return session.client.stream("POST", "/v1/nodes", body=body, idle=SILENCE)


def _confirmed(end: dict[str, Any], fingerprint: str) -> bool:
    """Ask, where somebody can answer; silence and anything but yes mean no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(table.printable(str(end.get("message") or fingerprint)), file=sys.stderr)
    print("Nobody has confirmed yet that this is the machine you mean.", file=sys.stderr)
    print("Is the fingerprint right? [yes/no] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _rm(args: argparse.Namespace, session: Invocation) -> int:
    from orchestrator.cli.show import steps

    worst = 0
    for name in args.names:
        stream = session.client.stream(
            "DELETE", _path(name), query={"force": args.force or None}, idle=SILENCE
        )
        worst = max(worst, steps.follow(stream, f"node rm {name}")[0])
    return worst
