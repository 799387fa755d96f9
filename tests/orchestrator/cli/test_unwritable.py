"""Standard output that cannot be written: one line says why, the code is 1, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = "import sys; from orchestrator.cli.start import main; sys.exit(main())"
FULL = "corral: No space left on device\n"
MUCH = (
    "services: {a: {image: x, environment: {" + ", ".join(f"K{n}: v" for n in range(9000)) + "}}}"
)

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")


def run(words, folder, to="/dev/full", **more):
    with open(to, "w") as out:
        return subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM, *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "", **more},
            cwd=folder,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.mark.parametrize(
    "words",
    [[], ["--help"], ["help", "up"], ["up", "--help"], ["config"], ["config", "--images"],
     ["completion", "bash"], ["version", "-f", "json"]],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_device_is_said_once(tmp_path, words, unbuffered):
    (tmp_path / "compose.yaml").write_text("services: {a: {image: x}}")
    done = run(words, tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (1, FULL)


def test_it_is_said_once_where_it_is_noticed_in_the_middle(tmp_path):
    (tmp_path / "compose.yaml").write_text(MUCH)
    done = run(["config"], tmp_path)
    assert (done.returncode, done.stderr) == (1, FULL)


def test_what_says_nothing_there_is_not_in_its_way(tmp_path):
    (tmp_path / "compose.yaml").write_text("services: {a: {image: x}}")
    done = run(["config", "-q"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    wrong = run(["bogus"], tmp_path)
    assert (wrong.returncode, "bogus" in wrong.stderr, "space" in wrong.stderr) == (2, True, False)


def test_a_closed_output_is_none_to_complain_of(tmp_path):
    program = f"{sys.executable} -P -c '{PROGRAM}' >&-"
    done = subprocess.run(
        ["sh", "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
