"""Completion: what may follow, with live names, and the shells' own functions; the man page."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli import complete, registry, words
from orchestrator.cli.commands import completion, man

ROOT = Path(__file__).parents[3]
FILE = """\
name: shop
services:
  # the front
  web:
    image: x
    ports: ["80"]
  "db":
    image: y
volumes:
  data: {}
"""


# A Tab in a process of its own, that waits for the fake however busy the machine is.
TAB = (
    "import sys; from orchestrator.cli import complete; from orchestrator.cli.main import main; "
    "complete.ANSWER = 300.0; "
)


@pytest.fixture
def shop(fake, clean_environment, monkeypatch):
    monkeypatch.setattr(complete, "ANSWER", 300.0)
    task = {"name": "shop-web-1", "service": "web", "node": "alpha", "status": "running"}
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": [task, {**task, "service": "old"}]})
    fake.on("GET", "/v1/stacks/blog/tasks", {"tasks": [{**task, "service": "blog"}]})
    stacks = [{"name": "shop", "status": "deployed"}, {"name": "blog", "status": "stopped"}]
    fake.on("GET", "/v1/stacks", {"stacks": stacks})
    nodes = [{"name": "alpha", "status": "ready"}, {"name": "beta", "status": "down"}]
    fake.on("GET", "/v1/nodes", {"nodes": nodes})
    for kind in ("secrets", "configs"):
        row = {"name": f"{kind}-made", "used_by": []}
        fake.on("GET", f"/v1/{kind}", {"contents": [row]})
    (clean_environment.work / "compose.yaml").write_text(FILE)
    return fake


FOLLOWS = {
    # typed -> some of what may follow, and what may not
    "": (["up", "ps", "node"], ["supervise", "--file"]),
    "p": (["ps", "port"], ["up"]),
    "-": (["--file", "-p", "--progress"], ["up"]),
    "--progress ": (["tty", "json"], ["up"]),
    "down --rmi ": (["local", "all"], ["up", "web"]),
    "--progress=j": (["--progress=json"], ["--progress=tty"]),
    "-p ": (["shop", "blog"], ["up"]),
    "-p shop p": (["ps"], ["shop"]),
    "-f ": ([":files"], ["up"]),
    "ps ": (["web", "db", "old"], ["data", "image"]),
    "ps web ": (["db", "old"], ["web"]),
    "ps -": (["--filter", "-q"], ["--build"]),
    "ps -q -": (["--filter"], ["-q", "--quiet"]),
    "ps --format ": (["table", "json"], ["web"]),
    "ps --format=j": (["--format=json"], []),
    "-p blog ps ": (["blog", "web"], ["old"]),
    "up --scale ": (["web=", "db="], ["web"]),
    "up --pull ": (["always", "never"], ["web"]),
    "up --pull always w": (["web"], ["db", "always"]),
    "scale ": (["web=", "db="], []),
    "exec w": (["web"], ["db"]),
    "exec web ": ([":files"], ["db"]),
    "exec -u root w": (["web"], ["root"]),
    "node ": (["ls", "drain"], ["alpha"]),
    "node drain ": (["alpha", "beta"], ["web"]),
    "node drain alpha ": (["beta"], ["alpha"]),
    "node ls -": (["--filter"], ["--no-wait"]),
    "secret rm ": (["secrets-made"], ["configs-made", "web"]),
    "config ": (["web", "rm", "create", "ls"], ["configs-made"]),
    "config -": (["--images"], ["rm"]),
    "config web ": (["db"], ["web", "rm"]),
    "config r": (["rm"], ["web"]),
    "config rm ": (["configs-made"], ["secrets-made", "web", "rm"]),
    "config inspect -": (["--format"], ["--images"]),
    "config inspect c": (["configs-made"], ["web"]),
    "inspect ": (["web", "alpha"], ["secrets-made"]),
    "completion ": (["bash", "zsh", "fish"], ["web"]),
    "nonsense ": ([], ["web", "ps"]),
}


@pytest.mark.parametrize("line", FOLLOWS)
def test_what_may_follow(shop, capsys, line):
    wanted, others = FOLLOWS[line]
    assert complete.run(["zsh", *complete.split(f"corral {line}")]) == 0
    found = [row.partition("\t")[0] for row in capsys.readouterr().out.splitlines()]
    assert set(wanted) <= set(found), found
    assert not set(others) & set(found), found


@pytest.mark.parametrize("line", ["ps ", "node drain ", "-p ", "exec ", "scale "])
def test_nobody_answers(clean_environment, capsys, line):
    assert complete.run(["fish", *complete.split(f"corral {line}")]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("line", ["ps ", "node drain ", "-p ", "volume rm ", "up --scale "])
def test_a_tab_logs_in_nowhere(clean_environment, capsys, monkeypatch, line):
    from orchestrator.client.ssh import SshHost

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(clean_environment.run))
    monkeypatch.setattr(SshHost, "files", lambda _: (str(clean_environment.run / "no.sock"), ""))
    monkeypatch.setattr(SshHost, "connect", lambda *_: pytest.fail("it logs in"))
    assert complete.run(["zsh", *complete.split(f"corral -H ssh://n1 {line}")]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_tab_asks_over_a_connection_that_stands(shop, clean_environment, capsys, monkeypatch):
    from orchestrator.client import ssh

    there = str(clean_environment.run / "controller.sock")
    monkeypatch.setattr(ssh, "STANDS", 300.0)
    monkeypatch.setattr(ssh.SshHost, "files", lambda _: (there, ""))
    complete.run(["zsh", *complete.split("corral -H ssh://n1 node drain ")])
    assert capsys.readouterr().out == "alpha\tready\nbeta\tdown\n"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("corral", [""]),
        ("corral ", [""]),
        ("corral ps", ["ps"]),
        ("corral ps ", ["ps", ""]),
        ("corral  -f 'my file' u", ["-f", "my file", "u"]),
        ('corral "a b', ["a b"]),
        (r"corral a\ b c", ["a b", "c"]),
    ],
)
def test_a_line_as_bash_has_it(line, found):
    assert complete.split(line) == found


def test_the_table_is_kept_as_long_as_the_commands_are_as_they_were(clean_environment, monkeypatch):
    first = words.table()
    monkeypatch.setattr(words, "collect", lambda: pytest.fail("it was kept"))
    assert words.table() == first
    for broken in ("", "[]", '{"stamp": 1}'):
        (clean_environment.run / "words.json").write_text(broken)
        with monkeypatch.context() as patch:
            patch.setattr(words, "collect", lambda: {"": {}})
            assert words.table() == {"": {}}
    monkeypatch.setattr(words, "_stamp", lambda: ["newer"])
    monkeypatch.setattr(words, "collect", lambda: {"": {"flags": {}}})
    assert words.table() == {"": {"flags": {}}}


BASH = """
source <(printf '%s' "$SCRIPT")
corral() {{ {python} -P -c '{tab} sys.exit(main(sys.argv[1:]))' "$@"; }}
COMP_LINE={line!r} COMP_POINT={point} COMP_WORDS=({words}) COMP_CWORD={number}
compopt() {{ local IFS=" "; echo "compopt $*"; }}
_corral
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("typed", "cut", "found"),
    [
        ("corral p", ["corral", "p"], {"ps", "port", "pause"}),
        ("corral ps --format=js", ["corral", "ps", "--format", "=", "js"], {"json"}),
        ("corral ps --format=", ["corral", "ps", "--format", "="], {"json", "table"}),
        ("corral scale w", ["corral", "scale", "w"], {"web=", "compopt -o nospace"}),
        ("corral -f ", ["corral", "-f", ""], {"compopt -o default"}),
        ("corral node drain b", ["corral", "node", "drain", "b"], {"beta"}),
    ],
)
def test_bash_itself(shop, typed, cut, found):
    script = BASH.format(
        python=sys.executable,
        tab=TAB,
        line=typed,
        point=len(typed),
        words=" ".join(f"'{word}'" for word in cut),
        number=len(cut) - 1,
    )
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SCRIPT": completion.BASH},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert found <= set(done.stdout.splitlines()), (done.stdout, done.stderr)
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_the_shell_can_read(corral, shell):
    done = corral("completion", shell)
    assert done.code == 0
    assert "corral __complete " + shell in done.out
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.out, text=True, check=True, timeout=300)


def test_a_tab_costs_little(shop):
    """The goal is 60 ms (docs/benchmarks.md has the figure); this catches a heavy import only."""
    words.table()
    program = f"{TAB}main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", program, "__complete", "zsh", "node", "drain", ""],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.startswith("alpha\tready\n")
    assert not {"asyncio", "pydantic", "yaml", "typing", "dataclasses"} & set(done.stderr.split())
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0


def test_the_manual_page_has_every_command_and_flag(corral):
    done = corral("man")
    assert done.code == 0
    shown = done.out.replace("\\-", "-").replace("\\&", "")
    for name, place in words.table().items():
        if name in words.HIDDEN or not name:
            continue
        assert f".SS corral {name}" in shown
        assert all(flag in shown for flag in set(place["flags"]) - {"-h", "--help"})
    assert set(registry.COMMANDS) - words.HIDDEN <= set(words.table())
    one = corral("man", "ps").out
    assert one.startswith(".TH CORRAL-PS 1")
    assert "\\-\\-no\\-trunc" in one
    assert corral("man", "nonsense").code == 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [("-q", "\\-q"), (".Name", "\\&.Name"), ("'x'", "\\&'x'"), ("a\\tb", "a\\etb")],
)
def test_no_text_is_an_order_to_roff(text, shown):
    assert man._roff(text) == shown
