"""`corral run SERVICE [COMMAND]`: a command once, in a container of its own beside the service's.

First what the service depends on is brought up (`up -d`, where it is not as the file says), then
one request makes the container, and this terminal is its terminal until the command has ended.
It ends with the command's exit code. Ctrl-P Ctrl-Q leaves it running.
"""

from __future__ import annotations

import argparse
import os
import time

from orchestrator.cli import deploy, reaching, said
from orchestrator.cli import oneoff as oneoffs
from orchestrator.cli import project as projects
from orchestrator.cli.commands.attach import KEYS, Attached, Keys
from orchestrator.cli.commands.exec import STDIN, STDOUT, environment, terminal_size
from orchestrator.cli.errors import ERROR, INTERRUPTED, USAGE, CliError
from orchestrator.cli.show import meanwhile
from orchestrator.client.errors import ClientError, NoAnswer, NoController
from orchestrator.client.http import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from orchestrator.cli.loaded import Loaded
    from orchestrator.cli.session import Invocation

KNOWN = 5.0  # seconds the controller has to hear what the node said
AGAIN = 60.0  # seconds a controller that goes meanwhile is waited for
SIGNALLED = 128  # an exit code above it: a signal ended the command


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.usage = "corral run [options] SERVICE [COMMAND] [ARGUMENT ...]"
    add("-d", "--detach", action="store_true", help="print its name once it runs, and return")
    add("--rm", action="store_true", help="remove it when it has ended")
    add("-e", "--env", action="append", default=[], metavar="KEY=VALUE", help="(repeatable)")
    add("--env-from-file", action="append", default=[], metavar="FILE", help="(repeatable)")
    add("-v", "--volume", action="append", default=[], metavar="SOURCE:TARGET", help="(repeatable)")
    add("-p", "--publish", action="append", default=[], metavar="HOST:PORT", help="(repeatable)")
    add("-P", "--service-ports", action="store_true", help="publish the service's ports")
    add("--name", default="", metavar="NAME", help="the container's name")
    add("--no-deps", action="store_true", help="not what the service depends on")
    add("--entrypoint", metavar="COMMAND", help="instead of the image's")
    add("-u", "--user", metavar="USER", help="as this user (name or uid[:gid])")
    add("-w", "--workdir", metavar="DIR", help="in this folder of the container")
    add("-T", "--no-TTY", "--no-tty", dest="no_tty", action="store_true", help="no terminal")
    add("-t", "--tty", action="store_true", help="accepted; a terminal gets a terminal")
    add("-i", "--interactive", action="store_true", help="accepted; input is always passed on")
    add("-l", "--label", action="append", default=[], metavar="KEY=VALUE", help="(repeatable)")
    add("--cap-add", action="append", default=[], metavar="NAME", help="(repeatable)")
    add("--cap-drop", action="append", default=[], metavar="NAME", help="(repeatable)")
    add("--use-aliases", action="store_true", help="answer to the service's names, too")
    add("--build", action="store_true", help="build the image first, also if it is there")
    add("--pull", choices=("always", "missing", "never"), help="when to pull the image")
    add("--remove-orphans", action="store_true", help="remove services the file no longer has")
    add("-q", "--quiet", action="store_true", help="show nothing but what it prints")
    for ignored in ("--quiet-pull", "--quiet-build"):
        add(ignored, action="store_true", help="accepted, has no effect here")
    add("words", nargs="...", metavar="SERVICE [COMMAND]", help="")


def run(args: argparse.Namespace, session: Invocation) -> int:
    if not args.words:
        raise CliError("run needs a service", hint="corral run web sh", code=USAGE)
    service, *command = args.words
    if command[:1] == ["--"]:
        command = command[1:]
    tty = os.isatty(STDIN) and os.isatty(STDOUT) and not (args.no_tty or args.detach)
    with meanwhile.telling(quiet=args.quiet) as now:
        now("reading the Compose files")
        project = projects.with_profiles_of(session.flags, [service])
        deploy.known_services(project.model, [service])
        session.flags.project_name = project.name
        body = _request(args, project, service, command, tty=tty)
        reaching.send_files(session.client, body["deploy"], now)
    made = reaching.first(
        session.client, lambda: _make(session, body, quiet=args.quiet), quiet=args.quiet
    )
    if made.get("needs"):
        code = _bring_up(session, args, [str(name) for name in made["needs"]])
        if code:
            return code
        made = _make(session, {**body, "dependencies": False}, quiet=args.quiet)
    if warnings := made.get("warnings"):
        from orchestrator.cli.show import watch

        prefix = watch.command_prefix(session)
        deploy.show(deploy.told(warnings, project.environment, prefix))
    if args.detach:
        return _detached(session, made)
    return _attached(args, session, made, tty=tty)


def _request(
    args: argparse.Namespace, project: Loaded, service: str, command: list[str], *, tty: bool
) -> dict[str, Any]:
    """Return what is asked for (specs.oneoff.StartOneOff)."""
    model = dict(project.model)
    services = dict(model.get("services") or {})
    declared = [str(name) for name in model.get("volumes") or {}]
    services[service] = oneoffs.changed(
        services[service],
        args,
        command=command,
        environment={**_env_files(args.env_from_file), **environment(args.env)},
        terminal=tty,
        declared=declared,
    )
    return {
        "deploy": {
            "key": os.urandom(16).hex(),
            "project": {**model, "services": services},
            "directory": project.working_dir,
            "origins": project.origins,
            "contents": projects.contents(project, [service], dependencies=not args.no_deps),
            "client": deploy.client_identity(),
            "services": [service],
            "build": "always" if args.build else "missing",
            "pull": args.pull,
            "no_deps": args.no_deps,
        },
        "service": service,
        "name": args.name,
        "remove": args.rm,
        "aliases": args.use_aliases,
        "attach": not args.detach,
        "dependencies": not args.no_deps,
        "here": _here(services[service], args.volume),
    }


def _here(service: dict[str, Any], words: list[str]) -> list[str]:
    """Return the targets of what -v binds: a path that is typed is one of this machine."""
    if not words:
        return []
    from specs.compose.merging.shortforms import parse_volume

    typed = {str(parse_volume(word)["target"]) for word in words}
    return [
        mount["target"]
        for mount in service["volumes"]
        if mount["type"] == "bind" and mount["target"] in typed
    ]


def _env_files(paths: list[str]) -> dict[str, str]:
    if not paths:
        return {}  # what reads them is 15 ms of imports
    from specs.compose.reading.envfile import EnvFile, EnvFileError, text_of

    found: dict[str, str] = {}
    for path in paths:
        try:
            with open(path, "rb") as file:
                known = EnvFile(text_of(file.read()), os.environ.get).values
        except (OSError, EnvFileError) as exc:
            raise CliError(f"--env-from-file {path}: {exc}") from None
        found.update(known)
    return found


def _make(session: Invocation, body: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Ask for it and show how its image comes; return the last line. Raises CliError, NoController.

    The request's key makes it safe to say it again to a controller that went meanwhile.
    """
    path = f"/v1/stacks/{quote(session.stack())}/runs"
    until = time.monotonic() + AGAIN
    tried = False
    while True:
        try:
            for line in session.client.stream("POST", path, body=body):
                if line.get("kind") == "end":
                    if not line.get("ok") and not line.get("needs"):
                        raise CliError(str(line.get("message")), hint=str(line.get("hint") or ""))
                    return dict(line)
                if not quiet and line.get("message"):
                    said.tell(str(line["message"]))
            why = NoAnswer("the controller went away")
        except NoAnswer as exc:
            absent = isinstance(exc, NoController) and not session.client.patient
            if not tried and (absent or time.monotonic() > until):
                raise  # the first word: one may have to be started (reaching.first)
            why = exc
        tried = True
        if time.monotonic() > until:
            raise why
        time.sleep(0.2)


def _bring_up(session: Invocation, args: argparse.Namespace, services: list[str]) -> int:
    """Bring up what it needs, as `up -d` does; return its exit code."""
    from orchestrator.cli.commands import up  # most runs find all they need

    parser = argparse.ArgumentParser()
    up.describe(parser)
    orphans = ["--remove-orphans"] if args.remove_orphans else []
    return up.run(parser.parse_args(["-d", *orphans, *services]), session)


def _act(session: Invocation, action: str, made: dict[str, Any], *, patient: bool = False) -> None:
    """Ask it of the controller; ``patient``: also of one that goes and comes meanwhile."""
    path = f"/v1/stacks/{quote(session.stack())}/oneoffs"
    ask = session.client.persist if patient else session.client.request
    ask("POST", path, body={"action": action, "names": [made["name"]]})


def _detached(session: Invocation, made: dict[str, Any]) -> int:
    task, name = str(made["task"]), str(made["name"])
    begun = Attached(session, task, name, reads=False, size=None, keys=None, detach=True)
    code = begun.listen()
    if code == 0:
        _until_known(session, task, _began)
    print(made["name"])
    return code


def _until_known(session: Invocation, task: str, known: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until the controller knows what its node told us: an `exec` or `rm` may come next."""
    until = time.monotonic() + KNOWN
    while time.monotonic() < until:
        try:
            if known(session.client.get(f"/v1/tasks/{quote(task)}")):
                return
        except ClientError:
            return  # it is gone, or nobody is there: whoever comes next is told so
        time.sleep(0.02)


def _began(task: dict[str, Any]) -> bool:
    runs = task["status"].get("runs") or ()
    return bool(runs and runs[-1].get("started_at"))


def _ended(task: dict[str, Any]) -> bool:
    from orchestrator.cli.show import containers  # with --rm nobody asks

    return task.get("state") in containers.FINAL


def _attached(
    args: argparse.Namespace, session: Invocation, made: dict[str, Any], *, tty: bool
) -> int:
    listener = Attached(
        session,
        str(made["task"]),
        str(made["name"]),
        reads=True,
        size=terminal_size() if tty else None,
        keys=Keys(KEYS) if tty else None,
        stop=lambda patient: _act(session, "stop", made, patient=patient),
    )
    try:
        code = listener.listen()
    except CliError:
        _settled(args, session, listener, made)
        raise
    except KeyboardInterrupt:
        # It has not begun, and is not to: nobody would see what it does.
        said.tell(f"\n{made['name']} is not started", said.WARNING)
        try:
            _act(session, "stop", made)
            if not args.rm:
                _act(session, "remove", made)
        except ClientError as exc:
            said.tell(f"corral: {exc}", said.ERROR)
            return ERROR
        return INTERRUPTED
    _settled(args, session, listener, made)
    if code > SIGNALLED and not listener.left:
        _say_why(session, made)
    return code


def _say_why(session: Invocation, made: dict[str, Any]) -> None:
    """Say why it was ended, where the cluster did that: with the task whose network it shared."""
    try:
        why = session.client.get(f"/v1/tasks/{quote(str(made['task']))}").get("pending_reason")
    except ClientError:
        return  # nobody is there to say it
    if why:
        said.tell(f"{made['name']} was ended: {why}", said.WARNING)


def _settled(
    args: argparse.Namespace, session: Invocation, listener: Attached, made: dict[str, Any]
) -> None:
    """Let the controller hear of the end that was heard here: `rm` removes what has ended."""
    if not args.rm and not listener.left:
        _until_known(session, str(made["task"]), _ended)
