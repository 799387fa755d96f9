"""What a machine is: one shell script that any POSIX shell runs, and the reading of its answer.

Run as root by ``join.py`` before anything is changed on the machine. It only looks: kernel features
are tried in namespaces of their own, which end with the command.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

TOOLS = ("conmon", "crun", "runc", "nft", "ip", "tar", "gzip", "skopeo", "buildah", "useradd",
         "groupadd", "setsid", "nsenter", "unshare", "mount", "flock")  # fmt: skip

SCRIPT = Path(__file__).with_name("probe.sh").read_text()  # arguments: TOOLS

# Asks a running agent who it belongs to; needs a Python that was found by SCRIPT.
HELLO = r"""
import http.client, socket, sys

class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect("/run/corral/agent.sock")
try:
    link = Unix("agent")
    link.request("GET", "/v1/hello")
    sys.stdout.write(link.getresponse().read().decode())
except OSError:
    pass
"""


@dataclass(frozen=True)
class Python:
    """An interpreter found on the machine."""

    path: str
    version: tuple[int, int, int]
    implementation: str
    lacks: str = ""  # a module of the standard library that is not there

    @property
    def minor(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"


@dataclass(frozen=True)
class Machine:
    """The script's answer."""

    one: dict[str, str]
    many: dict[str, tuple[str, ...]]
    pythons: tuple[Python, ...] = field(default=())

    def get(self, key: str) -> str:
        return self.one.get(key, "")

    def all(self, key: str) -> tuple[str, ...]:
        return self.many.get(key, ())


_MANY = ("tool", "python", "cannot", "address", "route", "vxlan", "nft", "firewall", "sshd",
         "running")  # fmt: skip


def read(answer: str) -> Machine | None:
    """Return what the machine said, or None when it did not get to the end."""
    one: dict[str, str] = {}
    many: dict[str, list[str]] = {key: [] for key in _MANY}
    for line in answer.splitlines():
        key, tab, value = line.partition("\t")
        if not tab:
            continue
        if key in many:
            many[key].append(value.strip())
        else:
            one[key] = value.strip()
    if "end" not in one:
        return None
    pythons = tuple(python for text in many["python"] if (python := _python(text)) is not None)
    return Machine(one, {key: tuple(values) for key, values in many.items()}, pythons)


def _python(text: str) -> Python | None:
    fields = text.split()
    try:
        major, minor, micro = (int(part) for part in fields[1].split("."))
        lacks = text.partition(" lacks ")[2]
        return Python(fields[0], (major, minor, micro), fields[2], lacks)
    except (IndexError, ValueError):
        return None
