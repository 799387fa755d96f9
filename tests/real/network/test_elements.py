"""What is sent to the kernel without `nft` is what `nft` would have put there."""

import json
import subprocess
import sys

import pytest

from tests.real.network.hosts import ROOT

pytestmark = pytest.mark.real


@pytest.mark.parametrize("seed", [1, 2])
def test_sets_hold_what_nft_would_have_put_there(seed):
    words = ["unshare", "-n", sys.executable, "-m", "tests.real.network.walk", str(seed), "25"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert told["refused"] == 0
    assert told["ours"] > 10
