"""Runs the image and volume tests of tests/real/images in private mount and net namespaces.

Their mounts and their registry on loopback are then invisible to the machine and to other
tests, and gone whatever happens.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real
INSIDE = Path(__file__).parent / "images"


@pytest.mark.parametrize("name", sorted(path.stem for path in INSIDE.glob("inside_*.py")))
@pytest.mark.timeout(600)
def test_in_private_namespaces(name: str, tmp_path: Path) -> None:
    inside(name, "not slow", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_many_moments(tmp_path: Path) -> None:
    inside("inside_kill", "slow", tmp_path, patience=1700)


def inside(name: str, marked: str, tmp_path: Path, patience: float = 580) -> None:
    done = subprocess.run(
        [
            *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"),
            *("-m", marked, "--timeout=600"),
            *("--durations=3", f"--basetemp={tmp_path / 'inside'}", str(INSIDE / f"{name}.py")),
        ],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "CORRAL_TEST_INSIDE": "1"},
        timeout=patience,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
