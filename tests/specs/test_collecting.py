"""What lives long is looked at by the cyclic collector once; what it finds is freed all the same.

Each in a process of its own: there is one collector a process.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import gc, weakref
from specs.kit.collecting import THRESHOLDS, aside

class Circle:
    def __init__(self):
        self.me = self

def seen():
    "Return how much the next full collection has to look at."
    return len(gc.get_objects())

gc.collect()
gc.freeze()
"""

CASES = {
    "a full collection looks at what is new": """
with aside():
    kept = [[] for _ in range(50_000)]
    gc.collect()
    assert seen() < 1_000, seen()
    more = [[] for _ in range(2_000)]
    assert 2_000 <= seen() < 4_000, seen()
""",
    "of itself it comes before much is new": """
with aside():
    kept, most = [], 0
    for _ in range(300_000):
        kept.append([])
        if not len(kept) % 500:
            most = max(most, seen())
    assert most < 60_000, most
""",
    "what nobody has any more is freed, wherever it lies": """
with aside():
    class Record:
        pass
    kept = [Record() for _ in range(10_000)]
    gone = weakref.ref(kept[0])
    gc.collect()
    kept.clear()
    assert gone() is None
""",
    "a new circle is found": """
with aside():
    gone = weakref.ref(Circle())
    gc.collect()
    assert gone() is None
""",
    "a circle that was in use is found when much more lies aside": """
with aside(room=gc.get_freeze_count() + 5_000):
    used = Circle()
    gone = weakref.ref(used)
    gc.collect()
    del used
    gc.collect()
    assert gone() is not None, "it lies aside"
    kept = [[] for _ in range(10_000)]
    gc.collect()
    gc.collect()
    assert gone() is None
    # Twice as much is needed from here on: not at every collection.
    used = Circle()
    gone = weakref.ref(used)
    gc.collect()
    del used
    kept += [[] for _ in range(5_000)]
    gc.collect()
    gc.collect()
    assert gone() is not None
""",
    "afterwards all is as before": """
before = gc.get_threshold()
with aside():
    assert gc.get_threshold() == THRESHOLDS
assert gc.get_threshold() == before
kept = [[] for _ in range(50_000)]
gc.collect()
assert seen() > 50_000
""",
}


@pytest.mark.parametrize("case", CASES)
def test_the_collector(case):
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + CASES[case]],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
