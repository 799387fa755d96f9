"""rc.local: our line comes and goes, everything else in it stays what it was."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from orchestrator.embedded import boot
from orchestrator.nodes.bootstrap import install
from specs.kit import programs

FILES = {
    "none": None,
    "empty": "",
    "a line": "#!/bin/sh\nmodprobe thing\n",
    "as Debian ships it": "#!/bin/sh -e\n#\n# rc.local\n\nexit 0\n",
    "with a node's line": "#!/bin/sh\nenv -i supervisor # corral\nexit 0\n",
    "no newline at its end": "#!/bin/sh\ntrue",
    "an older line of ours": f"#!/bin/sh\nold {boot.MARK}\nexit 0\n",
}


@pytest.fixture
def rc(tmp_path, monkeypatch):
    monkeypatch.setattr(boot, "RC", tmp_path / "rc.local")
    monkeypatch.setattr(boot, "CRON", tmp_path / "cron.d" / "corral")
    return boot.RC


@pytest.mark.parametrize("name", FILES)
def test_the_line_runs_at_boot_and_goes_again(tmp_path, rc, name):
    text = FILES[name]
    if text is not None:
        rc.write_text(text)
        rc.chmod(0o755)
    start, said = tmp_path / "a folder" / "start", tmp_path / "said"
    start.parent.mkdir()
    command = ["sh", "-c", f'echo "$A" "$HOME" >> {shlex.quote(str(said))}']
    for _ in range(2):  # repeating it changes nothing
        assert boot.install(start, {"A": "it's $5", "PATH": "/usr/bin:/bin"}, command) == ""
    assert start.stat().st_mode & 0o777 == 0o700, "it holds the environment"
    assert rc.read_text().count(boot.MARK) == 1
    lines = rc.read_text().splitlines()
    assert all(lines.index(x) > lines.index(next(y for y in lines if y.endswith(boot.MARK)))
               for x in lines if x == "exit 0")  # fmt: skip
    if name != "a line" and "node" not in name:
        subprocess.run([rc], check=True)
        assert said.read_text() == "it's $5 \n", "with its environment and nothing else"
    boot.remove(start)
    assert not start.exists()
    left = rc.read_text() if rc.exists() else None
    ours = {"empty": None, "an older line of ours": "#!/bin/sh\nexit 0\n"}
    expected = ours.get(name, text)
    assert left == (expected if expected is None or expected.endswith("\n") else expected + "\n")


def test_a_file_that_is_not_executable_is_named_and_left_so(tmp_path, rc):
    rc.write_text("#!/bin/sh\nrm -rf /somewhere\n")
    rc.chmod(0o644)
    assert "not executable" in boot.install(tmp_path / "start", {}, ["true"])
    assert rc.stat().st_mode & 0o777 == 0o644, "what it would start is not for us to decide"


def test_a_failing_start_skips_nothing_of_others(tmp_path, rc):
    rc.write_text(f"#!/bin/sh -e\ntrue\nexit 0\n# {tmp_path}\n")
    rc.chmod(0o755)
    assert boot.install(tmp_path / "start", {}, ["false"]) == ""
    assert subprocess.run([rc], check=False).returncode == 0


def test_what_cannot_be_written_is_named(tmp_path, rc):
    rc.mkdir()
    assert "cannot be changed" in boot.install(tmp_path / "start", {}, ["true"])


@pytest.mark.parametrize(
    ("folder", "daemons", "looks"),
    [
        (True, {"cron"}, True),
        (True, {"crond"}, True),
        (True, set(), False),  # the folder is everywhere; nobody would read it
        (False, {"cron"}, False),
    ],
)
def test_what_was_killed_all_at_once_is_started_by_cron_where_there_is_one(
    tmp_path, rc, monkeypatch, folder, daemons, looks
):
    monkeypatch.setattr(programs, "find", lambda name: name if name in daemons else None)
    if folder:
        boot.CRON.parent.mkdir()
    start, said = tmp_path / "start", tmp_path / "said"
    for _ in range(2):
        assert boot.install(start, {"A": "1"}, ["sh", "-c", f"echo $A >> {said}; exit 4"]) == ""
    assert boot.has_cron() == boot.CRON.exists() == looks
    if looks:
        (line,) = boot.CRON.read_text().splitlines()
        assert boot.CRON.stat().st_mode & 0o777 == 0o644
        assert line.startswith("* * * * * root ")
        assert "%" not in line, "cron would end the command there"
        subprocess.run(["sh", "-c", line.split(" root ", 1)[1]], check=True)
        assert said.read_text() == "1\n"
    boot.remove(start)
    assert not boot.CRON.exists()
    assert not list(boot.CRON.parent.glob("*")), "nothing is left of it"


@pytest.mark.parametrize("text", ["#!/bin/sh\n{} # corral\nexit 0\n", "#!/bin/sh\n", None])
def test_a_node_s_cron_line_runs_what_rc_local_has_of_ours(tmp_path, text):
    rc, said = tmp_path / "rc.local", tmp_path / "said"
    if text is not None:
        rc.write_text(text.format(f"env -i A=1 sh -c 'echo $A' >{said}"))
    line = install.CRON_LINE.replace("/etc/rc.local", str(rc))
    assert line.startswith("* * * * * root ")
    assert "%" not in line
    subprocess.run(["sh", "-c", line.split(" root ", 1)[1]], check=False, stderr=subprocess.DEVNULL)
    assert said.exists() == (text is not None and "{}" in text)
    step = install._start_supervised()
    assert subprocess.run(["sh", "-n"], input=step.script.encode(), check=True).returncode == 0
    assert install.CRON_LINE in step.script
