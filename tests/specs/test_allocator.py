"""How the daemons start: freed buffers go back to the kernel, no authorities are read."""

import os
import subprocess
import sys

import pytest

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


# A daemon's main up to where it would run, and what aiohttp then trusts.
START = """
import os, sys
from agent import __main__ as agent
from orchestrator import __main__ as orchestrator
from specs.kit import stalls
def instead(running):
    running.close()
    from aiohttp import connector
    print(len(connector._SSL_CONTEXT_VERIFIED.get_ca_certs()), os.environ.get("SSL_CERT_FILE"))
stalls.run = instead
agent.main() if sys.argv[1] == "agent" else orchestrator.main([])
"""


@pytest.mark.parametrize("daemon", ["agent", "orchestrator"])
def test_a_start_reads_no_list_of_authorities(daemon):
    environment = {name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"}
    assert said(daemon, environment) == "0 None"


def test_a_list_that_was_given_stays():
    assert said("agent", {**os.environ, "SSL_CERT_FILE": "/nowhere"}) == "0 /nowhere"


def said(daemon, environment):
    return subprocess.run(
        [sys.executable, "-c", START, daemon],
        capture_output=True, text=True, check=True, env=environment,
    ).stdout.strip()  # fmt: skip
