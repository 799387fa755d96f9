"""``python -m agent.dns DIRECTORY``: the node's resolver process.

DIRECTORY (the agent makes it) gets ``control.sock`` and ``lock``; ``zones.json``
is the snapshot the agent keeps there. Started by agent.network.resolver and
meant to outlive it.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from agent.dns.server import ResolverServer
from agent.dns.zone import Zones

_NOBODY = 65534


def main(directory: Path) -> int:
    """Run until told to quit; 3 when another one serves this directory already."""
    lock = (directory / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 3
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    zones = Zones()
    with suppress(OSError, ValueError, KeyError):  # no snapshot yet: the agent sends one
        zones.load(json.loads((directory / "zones.json").read_bytes()))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # two sockets per container
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    path = directory / "control.sock"
    path.unlink(missing_ok=True)
    control.bind(str(path))
    path.chmod(0o600)
    control.listen(4)
    if os.geteuid() == 0:
        # All sockets come by descriptor: nothing below needs a right, and what containers
        # send us is parsed as nobody.
        with suppress(OSError):
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C of a foreground agent is not for us
    ResolverServer(control, zones).run()
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m agent.dns DIRECTORY\n")
        sys.exit(2)
    sys.exit(main(Path(sys.argv[1])))
