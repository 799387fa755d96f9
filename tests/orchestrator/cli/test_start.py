"""Ctrl-C while the command is still being loaded, or has just ended: no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# Interrupts itself when a module is asked for, as somebody who changed his mind does.
INTERRUPTED_AT = """
import os, signal, sys
signal.signal(signal.SIGINT, {handler})
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
        return None
sys.meta_path.insert(0, Finder())
sys.argv = ["corral", *{words!r}]
from orchestrator.cli.start import main
code = main()
{then}
sys.exit(code)
"""


def run(module="", words=("version",), handler="signal.default_int_handler", then=""):
    program = INTERRUPTED_AT.format(module=module, words=list(words), handler=handler, then=then)
    return subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    "module",
    [
        "orchestrator.cli.main",
        "orchestrator.cli.registry",
        "orchestrator.client.errors",
        "orchestrator.cli.parsers",
        "argparse",
        "orchestrator.cli.commands.version",
        "orchestrator.client.client",
    ],
)
def test_an_interrupt_while_it_is_loaded_says_nothing(module):
    done = run(module)
    assert done.returncode in (-signal.SIGINT, 130)
    assert "Traceback" not in done.stderr
    assert "KeyboardInterrupt" not in done.stderr


def test_an_interrupt_when_it_has_ended_says_nothing():
    done = run(then="os.kill(os.getpid(), signal.SIGINT)")
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""


def test_where_it_is_ignored_it_stays_so():
    done = run("argparse", handler="signal.SIG_IGN")
    assert done.returncode == 0
    assert done.stdout


def test_it_is_what_the_command_begins_with():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"corral": "orchestrator.cli.start:main"}
