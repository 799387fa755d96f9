from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.cli.main import main

sys.path.insert(0, str(Path(__file__).parent))
from fake import FakeController

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def clean_environment(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("COMPOSE_", "CORRAL_")) or name in ("NO_COLOR", "TERM"):
            monkeypatch.delenv(name)
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setenv("CORRAL_RUN_DIR", str(run))
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    work = tmp_path / "shop"
    work.mkdir()
    monkeypatch.chdir(work)
    return SimpleNamespace(run=run, work=work, state=tmp_path / "state")


@pytest.fixture
def fake(clean_environment):
    controller = FakeController(str(clean_environment.run / "controller.sock"))
    yield controller
    controller.close()


class Clock:
    """Time that passes only where somebody sleeps, for a module that does ``import time``."""

    def __init__(self):
        self.slept = 0.0

    def monotonic(self):
        return 1000.0 + self.slept

    def sleep(self, seconds):
        self.slept += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def over_after(monkeypatch):
    """The time a user gave is over when the board has been told so many lines: not before."""
    from orchestrator.cli.show import board, watch
    from orchestrator.client import client, http

    def begin(lines):
        told, apply = [], board.Board.apply

        def counted(shown, line):
            told.append(line)
            return apply(shown, line)

        def now():
            return time.monotonic() + (3600.0 if len(told) >= lines else 0.0)

        monkeypatch.setattr(board.Board, "apply", counted)
        for module in (watch, client, http):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=now, sleep=time.sleep))

    return begin


@pytest.fixture
def corral(capsys):
    """Run the command line in this process; returns code, out, err."""

    def run(*argv):
        code = main([str(word) for word in argv])
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run


# In the background of a script Ctrl-C is ignored, and Python leaves that as it finds it.
INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


@pytest.fixture
def spawn_program():
    """Run Python text in a process of its own, as `corral ARGUMENTS` would run."""
    running = []

    def start(program, *argv, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", INTERRUPTIBLE + program, *argv],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            **options,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait(300)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()
