"""The daemons' allocator settings: freed buffers go back to the kernel."""

import subprocess
import sys

# One buffer is freed first: that is what raises glibc's threshold when nobody has fixed it.
PROGRAM = """
import sys
from specs.kit import allocator
if sys.argv[1] == "frugal":
    allocator.frugal()
def resident():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmRSS"))
first = b"x" * int(2 << 20)
del first
before = resident()
small, large = [], []
for n in range(48):
    large.append(b"x" * ((1 << 20) - n))
    small.append(bytes([n]) * 700)
del large
print(resident() - before)
"""


def kept(how: str) -> int:
    """Return how many KiB stay resident of 48 MiB that were freed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_freed_buffers_between_small_ones_go_back():
    assert kept("frugal") < 8 * 1024 < kept("as it is")
