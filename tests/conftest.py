"""Fixtures every test sees: lab hosts (tests/lab_fixtures.py) and Hypothesis' profiles.

Also which kernel tests stay in one process when several run (``--dist loadgroup``): those that
share hosts that are slow to make.
"""

import asyncio
import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import virtual_time
from tests.lab_fixtures import fresh_lab, host, lab, lab_pool

# pytest-asyncio asks for the thread's loop before it makes its own, and Python 3.11 then makes
# one that nobody closes; saying that there is none keeps that warning out of innocent tests.
asyncio.set_event_loop(None)

gc.disable()  # until all tests are imported; see pytest_collection_finish

# A script's background job has these ignored, or nohup, which what tests start would inherit.
USUAL = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGQUIT: signal.SIG_DFL,
}
for number, usual in USUAL.items():
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

__all__ = ["fresh_lab", "host", "lab", "lab_pool"]

# A busy two-core machine is not a finding: no deadlines, no health check of speed. What lands is
# judged by the same examples every time; the slow lane looks for new ones.
_BASE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, **_BASE)
settings.register_profile("explore", max_examples=2000, **_BASE)
settings.load_profile("explore" if os.environ.get("CORRAL_EXPLORE") else "repeatable")

HERE = Path(__file__).parent
# Long ones first, so that no process works alone in the end.
LONG = (
    "e2e/multi/test_chaos.py",
    "e2e/multi waiting",
    "e2e/multi working",
    "e2e/multi typed",
    "e2e/test_killed_daemons.py",
    "e2e/test_failpoints.py",
    "e2e/test_nodes.py",
    "real/test_bootstrap.py",
    "test_in_private_namespaces[inside_build]",
    "test_in_private_namespaces[inside_kill]",
    "test_in_private_namespaces[inside_registry]",
)
# Of the tests on three joined hosts those that mostly wait, for hosts to be missed and to be back.
WAITING = (
    "test_away.py",
    "test_faults.py",
    "test_lost_peers.py",
    "test_misplaced.py",
    "test_reboots.py",
    "test_refusals.py",
)


# And those that are commands, one after the other, and what they say.
TYPED = (
    "test_backup.py",
    "test_day.py",
    "test_down_images.py",
    "test_laptop.py",
    "test_objects.py",
    "test_verbs.py",
    "test_watch.py",
)


def _kind(file: str) -> str:
    return "waiting" if file in WAITING else "typed" if file in TYPED else "working"


def group(name: str) -> str:
    """Return what a test, named by its id, must stay together with; most are free."""
    path, _, test = name.partition("::")
    match path.split("/")[1:]:
        case ["e2e", "multi", "test_chaos.py"]:  # five hosts of its own
            return "e2e/multi/test_chaos.py"
        case ["e2e", "multi", file]:  # three joined hosts, in three processes at most
            return f"e2e/multi {_kind(file)}"
        case ["real", "test_images.py"]:
            return test  # each makes its own namespaces
        case ["e2e" | "real", *rest]:
            return "/".join(path.split("/")[1:]) if rest else name
    return name


SESSION = os.getpid()
virtual_time.install()
PATIENCE = pytest.mark.looptime(**virtual_time.PATIENCE)


def pytest_collection_finish() -> None:
    """Have the collector look at what tests make only, and less often: it was a seventh of all."""

    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("looptime"):
            item.add_marker(PATIENCE)
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(group(item.nodeid), len(order)))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell scripts/test.py that the session came to its end, in the process it started."""
    path = os.environ.get("CORRAL_TESTS_ENDED")
    if path and not hasattr(session.config, "workerinput") and os.getpid() == SESSION:
        Path(path).touch()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep groups in one process, in our order; marks would come too late for xdist."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return Together(config, log) if config.getvalue("dist") == "loadgroup" else None
