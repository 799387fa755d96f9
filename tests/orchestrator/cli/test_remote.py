"""A controller on another machine: addresses, what ssh says, contexts. Real ssh is in e2e/multi."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from orchestrator.client import contexts
from orchestrator.client.client import Client
from orchestrator.client.errors import BadHost, ClientError, Forbidden, NoAnswer, NoController
from orchestrator.client.ssh import REMOTE, SshHost

# A forwarded socket is a path that leads to another socket: a link does that, too.
SSH = """#!/bin/sh
printf '%s\\n' "$@" >> "$SAID"
while [ $# -gt 0 ]; do
    case $1 in -L) local=${2%%:*} ;; -E) log=$2 ;; esac
    shift
done
[ -n "$FAILS" ] && { printf '%s\\n' "$FAILS" > "$log"; exit 255; }
ln -sf "$LEADS_TO" "$local"
"""


@pytest.fixture
def ssh(tmp_path, monkeypatch, clean_environment):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(SSH)
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr("orchestrator.client.ssh.LOGIN", 300.0)
    monkeypatch.setenv("SAID", str(tmp_path / "said"))
    monkeypatch.setenv("LEADS_TO", str(clean_environment.run / "controller.sock"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with tempfile.TemporaryDirectory(prefix="cr-") as folder:  # a socket's path is short
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield tmp_path / "said"


ADDRESSES = {
    "ssh://n1": ("n1", "", REMOTE, "ssh n1"),
    "ssh://root@n1": ("root@n1", "", REMOTE, "ssh root@n1"),
    "ssh://root@n1:2222": ("root@n1", "2222", REMOTE, "ssh -p 2222 root@n1"),
    "ssh://root@10.0.0.1/run/x/c.sock": ("root@10.0.0.1", "", "/run/x/c.sock", "ssh root@10.0.0.1"),
    "ssh://[fd00::1]:22": ("fd00::1", "22", REMOTE, "ssh -p 22 fd00::1"),
    "ssh://a.b@host_1.example": ("a.b@host_1.example", "", REMOTE, "ssh a.b@host_1.example"),
    "ssh://n1/": ("n1", "", REMOTE, "ssh n1"),
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address(text):
    found = SshHost(text)
    assert (found.host, found.port, found.remote, found.login) == ADDRESSES[text]


@pytest.mark.parametrize(
    "text",
    [
        "ssh://",
        "ssh://@n1",
        "ssh://-oProxyCommand=x",
        "ssh://root@-x",
        "ssh://-l@n1",
        "ssh://n1:http",
        "ssh://n1:0",
        "ssh://n1 x",
        "ssh://n1;x",
        "ssh://$(x)",
    ],
)
def test_what_is_no_address_is_refused_before_ssh_sees_it(ssh, text):
    with pytest.raises(BadHost):
        Client(text)
    assert not ssh.exists()


def test_one_login_serves_every_command_and_nobody_is_asked(ssh, fake, corral):
    fake.on("GET", "/v1/stacks", {"stacks": []})
    for _ in range(3):
        assert corral("-H", "ssh://root@n1:2222", "ls", "-q").code == 0
    words = ssh.read_text().splitlines()
    assert words.count("-M") == 1
    assert {"BatchMode=yes", "ExitOnForwardFailure=yes", "ConnectTimeout=10"} <= set(words)
    assert words[-2:] == ["--", "root@n1"]
    assert words[words.index("-p") + 1] == "2222"
    assert words[words.index("-L") + 1].endswith(f".sock:{REMOTE}")
    folder = Path(os.environ["XDG_RUNTIME_DIR"]) / "corral-ssh"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_streams_and_requests_go_the_same_way(ssh, fake, corral, monkeypatch):
    from fake import Lines

    monkeypatch.setenv("CORRAL_HOST", "ssh://n1")
    line = {
        "task": "t",
        "name": "web-1",
        "service": "web",
        "stream": "stdout",
        "time": 1,
        "line": "a",
    }
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": []})
    fake.on("GET", "/v1/stacks/shop/logs", Lines([line]))
    done = corral("-p", "shop", "logs", "-f")
    assert done.out == "web-1  | a\n", done.err


REFUSALS = {
    "Host key verification failed.": (Forbidden, "host key of n1"),
    "No ED25519 host key is known for n1 and you have requested strict checking.\n"
    "Host key verification failed.": (Forbidden, "host key of n1"),
    "root@n1: Permission denied (publickey).": (Forbidden, "does not let you in"),
    "ssh: Could not resolve hostname n1: Name or service not known": (NoAnswer, "not known"),
    "ssh: connect to host n1 port 22: Connection refused": (NoAnswer, "Connection refused"),
    "ssh: connect to host n1 port 22: Connection timed out": (NoAnswer, "timed out"),
    "": (NoAnswer, "without a word"),
}


@pytest.mark.parametrize("said", REFUSALS)
def test_what_ssh_says_becomes_words_and_the_next_thing_to_type(ssh, monkeypatch, said):
    kind, words = REFUSALS[said]
    monkeypatch.setenv("FAILS", said or " ")
    with pytest.raises(kind, match=words) as refused:
        Client("ssh://n1").get("/v1/stacks")
    assert "ssh n1" in refused.value.hint


def test_a_controller_that_is_not_there_is_named_with_its_machine(ssh, corral, clean_environment):
    """sshd takes the connection, and closes it when nobody listens on the other side."""
    import socket
    import threading

    path = str(clean_environment.run / "controller.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def hang_up():
            listener.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(NoController, match=f"no controller answers on root@n1:{REMOTE}"):
            Client("ssh://root@n1").request("GET", "/v1/stacks")


def test_without_ssh_it_says_what_to_install(ssh, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BadHost, match="no ssh on this machine"):
        Client("ssh://n1").get("/v1/stacks")


def test_a_folder_that_others_can_enter_is_not_used(ssh):
    folder = Path(os.environ["XDG_RUNTIME_DIR"]) / "corral-ssh"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(BadHost, match="not this user's alone"):
        Client("ssh://n1").get("/v1/stacks")


def test_reading_over_a_connection_that_stands_loads_no_subprocess(ssh, fake, corral):
    fake.on("GET", "/v1/stacks", {"stacks": []})
    assert corral("-H", "ssh://n1", "ls").code == 0
    program = (
        "import sys; from orchestrator.cli.main import main; "
        "print(main(sys.argv[1:]), *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", program, "-H", "ssh://n1", "ls", "-q"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    code, *modules = done.stdout.split()
    assert code == "0", done.stderr
    assert not {"subprocess", "asyncio", "typing", "pathlib"} & set(modules)


@pytest.mark.parametrize("line", ["up -d", "run -d tool", "run -T tool x", "create"])
def test_what_is_asked_for_names_the_files_that_were_sent(
    ssh, fake, corral, clean_environment, line
):
    work = clean_environment.work
    (work / "conf").mkdir()
    (work / "conf/one").write_text("1")
    (work / "compose.yaml").write_text(
        "services: {tool: {image: x, build: ., volumes: ['./conf:/c:ro']}}"
    )
    machine = {"hostname": "n1", "boot_id": "b"}
    fake.on("GET", "/v1/version", {"version": "0.1.0", "api": 1, "cluster": "c", "epoch": 1})
    fake.on("POST", "/v1/sent/missing", {"missing": []})
    fake.on("POST", "/v1/sent/trees", {"path": "/there/tree", "client": machine})
    corral("-H", "ssh://n1", *line.split())
    (body,) = [
        r.body for r in fake.requests if r.method == "POST" and r.path.startswith("/v1/stacks/")
    ]
    body = body.get("deploy") or body
    tool = body["project"]["services"]["tool"]
    assert tool["build"]["context"] == tool["volumes"][0]["source"] == "/there/tree"
    assert (body["client"], body["directory"]) == (machine, "/there")


# Contexts


WHICH = {
    # -H, --context, CORRAL_CONTEXT, CORRAL_HOST, in use -> what counts, its name
    "nothing is said": ((None, None, None, None, None), None, "default"),
    "one is in use": ((None, None, None, None, "prod"), "ssh://prod", "prod"),
    "CORRAL_HOST before it": ((None, None, None, "ssh://h", "prod"), "ssh://h", ""),
    "CORRAL_CONTEXT before that": ((None, None, "lab", "ssh://h", "prod"), "ssh://lab", "lab"),
    "--context before that": ((None, "prod", "lab", "ssh://h", None), "ssh://prod", "prod"),
    "-H before all": (("ssh://x", "prod", "lab", "ssh://h", "prod"), "ssh://x", ""),
    "default by its name": ((None, "default", None, "ssh://h", "prod"), None, "default"),
}


@pytest.mark.parametrize("case", WHICH)
def test_which_controller_counts(ssh, monkeypatch, clean_environment, case):
    (host, context, named, variable, current), wanted, name = WHICH[case]
    every = {"prod": {"host": "ssh://prod"}, "lab": {"host": "ssh://lab"}}
    contexts.write({"current": current or "default", "contexts": every})
    for key, value in (("CORRAL_CONTEXT", named), ("CORRAL_HOST", variable)):
        if value:
            monkeypatch.setenv(key, value)
    local = f"unix://{clean_environment.run}/controller.sock"
    assert contexts.chosen(host, context) == (wanted or local, name)


def test_the_life_of_a_context(ssh, fake, corral):
    fake.on("GET", "/v1/stacks", {"stacks": []})
    assert corral("context", "show").out == "default\n"
    made = corral(
        "context", "create", "prod", "--docker", "host=ssh://root@n1", "--description", "x"
    )
    assert (made.code, made.out) == (0, "prod\n")
    assert corral("context", "create", "prod", "--host", "ssh://n2").code == 1
    assert corral("context", "use", "prod").out == "prod\n"
    assert corral("context", "show").out == "prod\n"
    assert corral("ls").code == 0
    assert "root@n1" in ssh.read_text()
    assert corral("context", "ls", "-q").out == "default\nprod\n"
    lines = corral("context", "ls").out.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "default", "prod"]
    assert lines[2].split() == ["prod", "*", "x", "ssh://root@n1"]
    one = json.loads(corral("context", "ls", "--format", "json").out.splitlines()[1])
    assert one["DockerEndpoint"] == "ssh://root@n1"
    assert corral("context", "update", "prod", "--host", "ssh://n3").code == 0
    assert corral("context", "inspect", "prod", "--format", "{{.Host}}").out == "ssh://n3\n"
    assert corral("context", "rm", "prod").code == 1
    assert corral("context", "rm", "-f", "prod").out == "prod\n"
    assert corral("context", "show").out == "default\n"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("create x --host ssh://n1", 2, "cannot be the name"),
        ("create default --host ssh://n1", 2, "cannot be the name"),
        ("create ../x --host ssh://n1", 2, "cannot be the name"),
        ("create prod --host nonsense", 1, "not the address of a controller"),
        ("create prod", 2, "--host"),
        ("use nope", 1, "there is no context nope"),
        ("rm nope", 1, "there is no context nope"),
        ("rm default", 1, "stays"),
        ("update default --host ssh://n1", 2, "stays"),
        ("inspect nope", 1, "there is no context nope"),
        ("frobnicate", 2, "one of create"),
    ],
)
def test_what_cannot_be_a_context_is_said(ssh, corral, words, code, says):
    done = corral("context", *words.split())
    assert done.code == code
    assert says in done.err
    assert not Path(contexts.path()).exists()


def test_a_context_that_is_gone_and_a_broken_file_are_said(ssh, corral, monkeypatch):
    contexts.write({"current": "gone", "contexts": {}})
    assert "there is no context gone" in corral("ls").err
    Path(contexts.path()).write_text("{")
    done = corral("ls")
    assert (done.code, "makes no sense" in done.err) == (1, True)
    monkeypatch.setenv("CORRAL_HOST", "unix:///nowhere")
    assert "makes no sense" not in corral("ls").err


def test_every_error_of_the_way_is_one_of_the_clients():
    assert all(issubclass(kind, ClientError) for kind, _ in REFUSALS.values())
