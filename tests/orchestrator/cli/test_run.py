"""What `run`'s flags make of a service, and the keys that leave it running."""

from __future__ import annotations

import argparse
import os
from types import SimpleNamespace

import pytest

from orchestrator.cli import oneoff
from orchestrator.cli.commands import run
from orchestrator.cli.commands.attach import KEYS, Keys
from orchestrator.cli.errors import USAGE, CliError
from orchestrator.client.errors import ApiNotFound, NoAnswer
from specs.compile.stack import compile_stack

SERVICE = {
    "image": "app:1",
    "command": ["serve"],
    "entrypoint": ["/entry"],
    "environment": {"A": "file", "B": "file"},
    "labels": {"l": "file"},
    "ports": [{"target": 80, "published": "8080", "protocol": "tcp", "mode": "ingress"}],
    "volumes": [{"type": "volume", "source": "data", "target": "/data", "volume": {}}],
    "networks": {"back": {"ipv4_address": "10.9.0.5", "aliases": ["w"]}, "front": None},
    "depends_on": {"db": {"condition": "service_started"}},
    "restart": "always",
    "container_name": "fixed",
    "profiles": ["tools"],
    "cap_add": ["NET_ADMIN"],
    "deploy": {"replicas": 3, "resources": {"limits": {"memory": "1"}}, "update_config": {}},
}
PORT = {"target": 81, "published": "8081", "protocol": "tcp", "mode": "ingress"}


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    run.describe(parser)
    return parser.parse_args([*words])


def made(*words: str, terminal: bool = False, environment=None):
    args = parsed(*words)
    return oneoff.changed(
        SERVICE,
        args,
        command=args.words[1:],
        environment=environment or {},
        terminal=terminal,
        declared=("data", "more"),
    )


# words of the command line, key of the service, what it has
TABLE = [
    ("web", "command", ["serve"]),
    ("web a -b --rm", "command", ["a", "-b", "--rm"]),
    ("web", "entrypoint", ["/entry"]),
    ("--entrypoint sh web", "command", []),
    ("--entrypoint 'sh -c' web x", "entrypoint", ["sh", "-c"]),
    ("--entrypoint 'sh -c' web x", "command", ["x"]),
    ("--entrypoint '' web x", "entrypoint", []),
    ("web", "ports", []),
    ("-P web", "ports", SERVICE["ports"]),
    ("-p 8081:81 web", "ports", [PORT]),
    ("-P -p 8081:81 web", "ports", [*SERVICE["ports"], PORT]),
    ("-l l=own -l m=own web", "labels", {"l": "own", "m": "own"}),
    ("-u 5:6 web", "user", "5:6"),
    ("-w /srv web", "working_dir", "/srv"),
    ("--cap-add SYS_TIME web", "cap_add", ["NET_ADMIN", "SYS_TIME"]),
    ("--cap-drop KILL web", "cap_drop", ["KILL"]),
    ("web", "depends_on", SERVICE["depends_on"]),
    ("--no-deps web", "depends_on", None),
    ("web", "restart", None),
    ("web", "container_name", None),
    ("web", "profiles", None),
    ("web", "deploy", {"resources": {"limits": {"memory": "1"}}}),
    ("web", "networks", {"back": {"aliases": ["w"]}, "front": None}),
    ("web", "stdin_open", True),
    ("web", "tty", False),
    ("-d web", "stdin_open", None),
    ("-d web", "tty", None),
]


@pytest.mark.parametrize(("words", "key", "value"), TABLE)
def test_what_the_flags_make_of_the_service(words, key, value):
    import shlex

    assert made(*shlex.split(words)).get(key) == value


NEEDED = {"db": {"condition": "service_started"}}
DATA = [{"type": "volume", "source": "data", "target": "/data"}]
# What the service says, and the words of `run` that do not go with it for the service's own tasks.
OF_ITS_TASKS = [
    ({"deploy": {"mode": "replicated-job"}, "x-corral": {"max_concurrent": 2}}, "web"),
    ({"x-corral": {"schedule": "@daily"}}, "-p 8081:81 web"),
    ({"x-corral": {"canary": {"replicas": 1}}}, "-v data:/data web"),
    ({"x-corral": {"update": "blue-green", "keep_old": "5m"}}, "-v data:/data web"),
    (
        {
            "deploy": {"replicas": 2},
            "volumes": DATA,
            "x-corral": {"canary": {"replicas": 1}, "security": "baseline"},
        },
        "web",
    ),
    ({"depends_on": NEEDED, "x-corral": {"depends_deadline": "2m"}}, "--no-deps web"),
    ({"depends_on": NEEDED, "x-corral": {"depends_deadline": "2m"}}, "web"),
    ({"cpus": 1, "x-corral": {"autoscale": {"max": 3, "cpu": "50%"}}}, "web"),
]


@pytest.mark.parametrize(("said", "words"), OF_ITS_TASKS)
def test_what_corral_says_of_the_services_own_tasks_is_not_said_of_a_one_off(said, words):
    services = {"web": {"image": "app:1", **said}, "db": {"image": "db:1"}}
    project = {"name": "demo", "services": services, "volumes": {"data": {}}}
    assert compile_stack(project, {}, "demo")[0].services["web"], "the file itself is right"
    args = parsed(*words.split())
    own = oneoff.changed(
        services["web"], args, command=(), environment={}, terminal=False, declared=("data",)
    )
    spec, _ = compile_stack({**project, "services": {**services, "web": own}}, {}, "demo")
    web = spec.services["web"]
    assert (web.max_concurrent, web.schedule, web.autoscale) == (None, None, None)
    assert web.update.canary is None
    assert not web.update.blue_green
    assert web.task.security == said["x-corral"].get("security", "default")


@pytest.mark.parametrize("said", [5, [], "x"])
def test_what_is_no_mapping_is_left_for_the_compiler_to_refuse(said):
    own = oneoff.changed(
        {"image": "a", "x-corral": said}, parsed("web"), command=(), environment={}, terminal=False
    )
    assert own["x-corral"] == said


def test_a_terminal_and_the_environment():
    found = made("web", terminal=True, environment={"A": "own"})
    assert found["tty"] is True
    assert found["environment"] == {"A": "own", "B": "file"}


def test_volumes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = made("-v", "more:/more:ro", "-v", "./x:/data", "-v", "/anon", "web")["volumes"]
    assert [(m["type"], m.get("source"), m["target"]) for m in found] == [
        ("bind", os.path.join(tmp_path, "x"), "/data"),
        ("volume", "more", "/more"),
        ("volume", None, "/anon"),
    ]
    assert found[1]["read_only"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-v", "nosuch:/x", "web"), "no volume nosuch"),
        (("-v", "data:bb:cc:dd", "web"), "too many colons"),
        (("-p", "no:port", "web"), "-p no:port"),
        (("--entrypoint", "'", "web"), "--entrypoint"),
    ],
)
def test_what_is_refused(words, said):
    with pytest.raises(CliError, match=said) as caught:
        made(*words)
    assert caught.value.code == USAGE


# what is typed, piece by piece; what is passed on; whether the user leaves
KEYED = [
    ((b"ls\n",), b"ls\n", False),
    ((b"\x10\x11",), b"", True),
    ((b"\x10", b"\x11"), b"", True),
    ((b"a\x10", b"b"), b"a\x10b", False),
    ((b"\x10\x10\x11x",), b"\x10", True),
    ((b"\x11\x10",), b"\x11", False),
    ((b"x\x10\x11",), b"x", True),
]


@pytest.mark.parametrize(("typed", "passed", "left"), KEYED)
def test_the_keys_that_leave(typed, passed, left):
    keys, found, gone = Keys(KEYS), b"", False
    for piece in typed:
        more, gone = keys.feed(piece)
        found += more
        if gone:
            break
    assert (found, gone) == (passed, left)


def test_other_keys_and_none():
    assert Keys("ctrl-a,x").feed(b"\x01x") == (b"", True)
    assert Keys("").feed(b"\x10\x11") == (b"\x10\x11", False)
    with pytest.raises(CliError, match="no key"):
        Keys("ctrl-,x")


# --rm, whether the user left, what the controller says look by look; how often it is asked
SETTLED = [
    (False, False, ["running", "running", "complete"], 3),
    (False, False, ["failed"], 1),
    (False, False, ["running", NoAnswer("it went")], 2),
    (False, False, ["running", None], 2),
    (True, False, ["running"], 0),
    (False, True, ["running"], 0),
]


@pytest.mark.parametrize(("removes", "left", "looks", "asked"), SETTLED)
def test_the_end_is_known_before_run_ends(removes, left, looks, asked):
    """`corral run ...; corral rm -f NAME`: rm removes what the controller knows has ended."""
    rest = list(looks)

    def get(_):
        look = rest.pop(0)
        if look is None:
            raise ApiNotFound({"title": "gone"}, 404)
        if isinstance(look, Exception):
            raise look
        return {"state": look, "status": {}}

    session = SimpleNamespace(client=SimpleNamespace(get=get))
    listener, made = SimpleNamespace(left=left), {"task": "t", "name": "n"}
    run._settled(SimpleNamespace(rm=removes), session, listener, made)
    assert len(looks) - len(rest) == asked


def test_a_controller_that_never_hears_of_the_end_holds_run_up_for_a_moment_only(
    monkeypatch, clock
):
    monkeypatch.setattr(run, "time", clock)
    client = SimpleNamespace(get=lambda _: {"state": "running", "status": {}})
    run._until_known(SimpleNamespace(client=client), "t", run._ended)
    assert clock.slept == pytest.approx(run.KNOWN, abs=0.1)


@pytest.mark.parametrize(
    ("code", "task", "says"),
    [
        (143, {"pending_reason": "app-web-1, whose network it shares, goes"}, "was ended: app-web"),
        (137, {"pending_reason": ""}, ""),
        (137, ApiNotFound({}, 404), ""),
        (0, {"pending_reason": "it is not asked for"}, ""),
    ],
)
def test_why_the_cluster_ended_it_is_said(monkeypatch, capsys, code, task, says):
    class Heard:
        left = False

        def __init__(self, *_, **__):
            pass

        def listen(self):
            return code

    def get(path):
        assert path == "/v1/tasks/t1"
        if isinstance(task, Exception):
            raise task
        return task

    monkeypatch.setattr(run, "Attached", Heard)
    session = SimpleNamespace(client=SimpleNamespace(get=get))
    made_ = {"task": "t1", "name": "app-side-run-1"}
    args = argparse.Namespace(rm=True)
    assert run._attached(args, session, made_, tty=False) == code
    told = capsys.readouterr().err
    assert (f"app-side-run-1 {says}" in told) if says else not told


@pytest.mark.parametrize(
    ("words", "here"),
    [
        ([], []),
        (["/srv/x:/a"], ["/a"]),
        (["./x:/a", "/srv/y:/b:ro"], ["/a", "/b"]),
        (["data:/d"], []),  # a volume of the file
        (["/anonymous"], []),
    ],
)
def test_which_binds_are_of_this_machine(words, here):
    from orchestrator.cli.commands import run as command

    mounts = [{"type": "bind", "source": "/etc/app", "target": "/own"}]
    for word in words:
        kind = "bind" if word[0] in "./" and ":" in word else "volume"
        mounts.append({"type": kind, "target": word.split(":")[1] if ":" in word else word})
    assert command._here({"volumes": mounts}, words) == here
