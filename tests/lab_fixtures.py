"""Lab hosts for tests. ``tests/conftest.py`` makes these fixtures known to every test.

``host``: one running lab host. ``lab``: three hosts (another number by indirect parametrisation)
and a ``client`` outside the cluster. Both are shared by the whole session, because a test then
costs milliseconds, and both end each test with the leak check: what the test did not undo fails
it, and the next test gets new hosts. State below /var/lib/corral is emptied in between, except
the images. ``fresh_lab``: a function that makes a lab for this test alone.

A test that started the embedded cluster on a host ends it with ``end_cluster(host)``, because
``controller stop`` leaves containers and their network running, by design.

In a host: ``host.run([...])``, ``host.popen([...])``, ``host.corral("up", "-d")``,
``host.write(path, text)``, ``host.copy_in(directory, path)``; see orchestrator/lab/host.py.
``tests.warm.corral(host, "ps")`` is ``host.corral`` for a third of the CPU time: where a test makes
many calls and is not about the process, which is why the clusters of tests/e2e use it. The
checkout and its .venv are there, read-only, at the same paths; base images put below the
checkout's ``.cache/`` are therefore visible in every host.
"""

from __future__ import annotations

import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from orchestrator.lab.lab import Lab, down_stale
from tests import leaks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.lab.host import LabHost

# What a test may leave: state is kept over `down`, by design.
KEPT = (r"^files: /var/lib/corral/",)
CHECKED = tuple(kind for kind in leaks.ALL if kind != "sysctls")  # an agent changes some, for good
SETTLE = 60.0  # seconds; a machine at rest needs less than one
Snapshots = dict[str, leaks.Snapshot]
EMPTY_STATE = """
cd /var/lib/corral && find . -mindepth 1 -maxdepth 1 ! -name agent -exec rm -rf {} +
[ ! -d agent ] || find agent -mindepth 1 -maxdepth 1 ! -name images -exec rm -rf {} +
"""


class LabPool:
    """The session's labs by number of nodes."""

    def __init__(self) -> None:
        self._labs: dict[tuple[int, bool], Lab] = {}
        self.snapshots: dict[str, Snapshots] = {}  # by lab name: as the last test left it

    def get(self, nodes: int, *, client: bool) -> Lab:
        key = (nodes, client)
        if key not in self._labs:
            self._labs[key] = self.make(nodes, client=client)
        return self._labs[key]

    def make(self, nodes: int, *, client: bool = True) -> Lab:
        return Lab.up(f"test-{uuid.uuid4().hex[:10]}", nodes, client=client, owner=os.getpid())

    def discard(self, lab: Lab) -> None:
        self._labs = {key: kept for key, kept in self._labs.items() if kept is not lab}
        lab.down()

    def down(self) -> None:
        for lab in list(self._labs.values()):
            self.discard(lab)


LEAVE = """
import http.client, socket, time
until = time.monotonic() + 60  # for an agent that is being started again
class Unix(http.client.HTTPConnection):
    def connect(self):
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(180)
            try:
                return self.sock.connect("/run/corral/agent.sock")
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
link = Unix("agent")
link.request("POST", "/v1/leave")
answer = link.getresponse()
print(answer.status, answer.read().decode())
raise SystemExit(0 if answer.status == 200 else 1)
"""


def leave(host: LabHost) -> None:
    """Have a host's agent leave, which may be just starting. Raises LabError where it does not."""
    host.run(
        ["sh", "-c", "[ ! -S /run/corral/agent.sock ] || python3 -I -"], stdin=LEAVE, timeout=240
    )


def end_cluster(host: LabHost) -> None:
    """End the embedded cluster of a host: its node leaves, so that nothing of it may be left."""
    leave(host)
    host.corral("controller", "stop", timeout=240)
    host.run(["sh", "-c", "rm -rf /run/corral; groupdel corral 2>/dev/null; true"])


@pytest.fixture(scope="session")
def lab_pool() -> Iterator[LabPool]:
    if os.geteuid() != 0:
        pytest.fail("tests on lab hosts need root")
    down_stale()
    pool = LabPool()
    yield pool
    pool.down()


def _checked(pool: LabPool, lab: Lab) -> Iterator[None]:
    """Let a test run on the lab; then see that it left nothing."""
    before = pool.snapshots.pop(lab.name, None) or _snapshots(lab)
    yield
    try:
        _restore(lab)
        after, left = _settled(lab, before)
        for host in lab.hosts.values() if not left else ():
            host.run(["sh", "-c", EMPTY_STATE])
    except BaseException:
        pool.discard(lab)
        raise
    if left:
        pool.discard(lab)
        pytest.fail("left behind:\n" + "\n".join(left), pytrace=False)
    pool.snapshots[lab.name] = after  # nothing happens to the hosts until the next test


def _snapshots(lab: Lab) -> Snapshots:
    with ThreadPoolExecutor(2) as pool:
        hosts = lab.hosts.values()
        found = pool.map(lambda host: leaks.of_host(host, CHECKED), hosts)
        return dict(zip(lab.hosts, found, strict=True))


def _settled(lab: Lab, before: Snapshots) -> tuple[Snapshots, list[str]]:
    """Return the hosts' state once nothing differs, or what differs after SETTLE seconds."""
    deadline = time.monotonic() + SETTLE
    while True:
        after = _snapshots(lab)
        left = [
            f"{name} {line}"
            for name in lab.hosts
            for line in leaks.difference(before[name], after[name], CHECKED, KEPT)
        ]
        if not left or time.monotonic() > deadline:
            return after, left
        time.sleep(0.1)


def _restore(lab: Lab) -> None:
    for name, host in lab.hosts.items():
        lab.heal(name)
        if host.pid is None:
            host.boot()
        host.freeze(frozen=False)


@pytest.fixture
def host(lab_pool: LabPool) -> Iterator[LabHost]:
    """One lab host, shared by the session; the test must leave it as it was."""
    lab = lab_pool.get(1, client=False)
    checked = _checked(lab_pool, lab)
    next(checked)
    yield lab.nodes[0]
    next(checked, None)


@pytest.fixture
def lab(lab_pool: LabPool, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three hosts and a client, shared by the session; the test must leave them as they were."""
    lab = lab_pool.get(getattr(request, "param", 3), client=True)
    checked = _checked(lab_pool, lab)
    next(checked)
    yield lab
    next(checked, None)


@pytest.fixture
def fresh_lab(lab_pool: LabPool) -> Iterator[Callable[..., Lab]]:
    """A function that makes labs for this test alone: ``fresh_lab(nodes=1, client=False)``."""
    made: list[Lab] = []

    def make(nodes: int = 1, *, client: bool = False) -> Lab:
        made.append(lab_pool.make(nodes, client=client))
        return made[-1]

    yield make
    for lab in made:
        lab.down()
