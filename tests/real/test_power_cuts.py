"""The current fails under the store and the journal: what was acknowledged is there afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[2]


def cuts(count: int, seed: str, folder: Path) -> None:
    done = subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private"),
            *(sys.executable, "-m", "tests.real.power_cuts", str(count), seed, str(folder)),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60 + 20 * count,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.splitlines()[-1].split()
    assert int(told[2]) > count, "it wrote meanwhile"
    print(done.stdout)


@pytest.mark.timeout(600)
def test_twenty_power_cuts(tmp_path):
    cuts(20, "20261128", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(5))
def test_many_power_cuts(tmp_path, seed):
    cuts(20, str(seed), tmp_path)
