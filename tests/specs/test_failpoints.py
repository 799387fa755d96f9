"""Failpoints: off they are nothing, on they do what the folder says, and the names are true."""

from __future__ import annotations

import errno
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from specs.kit import failpoints
from specs.kit.failpoints import FALLIBLE, POINTS, arm, reached, watched
from tests.e2e.kills import ELSEWHERE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/failpoints.md").read_text()
ALL = [name for names in POINTS.values() for name in names]
CALL = re.compile(r'\breached\("([a-z_.]+)"\)')


def in_code() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for package in ("specs", "agent", "orchestrator"):
        for path in (ROOT / package).rglob("*.py"):
            for name in CALL.findall(path.read_text()):
                found.setdefault(name, set()).add(package)
    return found


def test_each_name_stands_once_in_the_list_and_is_in_the_code():
    assert len(ALL) == len(set(ALL))
    assert set(ALL) == in_code().keys()
    assert set(ALL) >= FALLIBLE


@pytest.mark.parametrize("daemon", POINTS)
def test_a_name_is_in_the_code_of_its_daemon(daemon):
    package = {"controller": {"orchestrator"}, "agent": {"agent"}, "both": {"specs"}}[daemon]
    places = in_code()
    assert {name: places[name] for name in POINTS[daemon] if places[name] != package} == {}


def test_the_page_has_each_name_once():
    told = re.findall(r"^\| `([a-z_.]+)` \|", PAGE, re.MULTILINE)
    assert sorted(told) == sorted(ALL)


def test_the_page_marks_those_that_may_be_refused():
    told = re.findall(r"^\| `([a-z_.]+)` \|.*\| yes \|", PAGE, re.MULTILINE)
    assert set(told) == FALLIBLE


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_what_no_single_machine_reaches_has_a_test_of_its_own(name):
    ending = rf"^\| `{re.escape(name)}` \|.*\| `(tests/[\w/.]+)` \|$"
    (row,) = re.findall(ending, PAGE, re.MULTILINE)
    assert name in (ROOT / row).read_text()


def test_off_nobody_looks():
    assert failpoints._look is None
    reached("no such place, and nobody minds")


def test_an_environment_without_the_variable_arms_nothing(tmp_path):
    arm({}, "agent")
    assert failpoints._look is None


UNFIT = {
    "missing": lambda top: None,
    "a file": lambda top: top.touch(),
    "open to others": lambda top: (top / "agent").mkdir(parents=True) or top.chmod(0o750),
    "the daemon's own is open": lambda top: (
        (top / "agent").mkdir(parents=True) or top.chmod(0o700) or (top / "agent").chmod(0o777)
    ),
    "none for this daemon": lambda top: (
        (top / "controller").mkdir(parents=True) or top.chmod(0o700)
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_folder_that_others_may_write_to_is_ignored_and_named(case, tmp_path, caplog):
    top = tmp_path / "points"
    UNFIT[case](top)
    arm({failpoints.VARIABLE: str(top)}, "agent")
    assert failpoints._look is None
    assert "is ignored" in caplog.text


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(failpoints, "_look", None)
    (tmp_path / "points").mkdir(mode=0o700)
    (tmp_path / "points/agent").mkdir(mode=0o700)
    arm({failpoints.VARIABLE: str(tmp_path / "points")}, "agent")
    return tmp_path / "points/agent"


@pytest.mark.parametrize(("kind", "number"), [("error", errno.EIO), ("enospc", errno.ENOSPC)])
def test_an_effect_is_refused_once(folder, kind, number):
    (folder / "record.before_write").write_text(kind)
    with pytest.raises(OSError) as refused:
        reached("record.before_write")
    assert refused.value.errno == number
    reached("record.before_write")
    assert (folder / "hit/record.before_write").exists()


def test_it_happens_at_the_time_that_is_named(folder):
    (folder / "record.before_write").write_text("error 3")
    reached("record.before_write")
    reached("record.before_write")
    with pytest.raises(OSError):
        reached("record.before_write")


def test_a_place_that_is_reached_is_noted_armed_or_not(folder):
    reached("cmd.received")
    assert [path.name for path in (folder / "reached").iterdir()] == ["cmd.received"]
    assert not list((folder / "hit").iterdir())


@pytest.mark.parametrize("name", ["cmd.received", "no.such_place"])
def test_what_cannot_fail_there_does_not(folder, name, caplog):
    (folder / name).write_text("error")
    reached(name)
    assert "cannot have 'error' happen" in caplog.text


def test_a_hang_lasts_as_long_as_is_said(folder):
    (folder / "cmd.received").write_text("hang 1 0.05")
    began = time.monotonic()
    reached("cmd.received")
    assert time.monotonic() - began >= 0.05


def test_a_kill_is_one(folder):
    (folder / "cmd.received").write_text("kill")
    script = (
        "import os; from specs.kit import failpoints as f; f.arm(os.environ, 'agent');"
        "f.reached('cmd.received'); print('alive')"
    )
    environment = {failpoints.VARIABLE: str(folder.parent), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""


def test_in_one_process_a_test_is_told():
    seen = []
    with watched(seen.append):
        reached("cmd.received")
    reached("cmd.received")
    assert seen == ["cmd.received"]


def test_a_kind_that_there_is_not():
    with pytest.raises(ValueError, match="no kind"):
        failpoints.act("explode")
