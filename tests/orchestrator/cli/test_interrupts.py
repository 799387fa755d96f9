"""Ctrl-C at any instruction: an attached `up` goes on to read what it is told."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from orchestrator.cli.show import attach


@pytest.fixture
def attached():
    session = SimpleNamespace(client=None)
    return attach.AttachedRun(
        session, None, None, stack="shop", release={"number": 1}, services=("web",), ends=None
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(2))
def test_an_interrupt_at_any_moment_leaves_the_queue_usable(attached, seed):
    """Thousands of them: a lock that one of them leaves taken hangs the test."""
    rng = random.Random(seed)
    interrupts = got = 0

    def interrupt(*_):
        raise KeyboardInterrupt

    def feed():
        while not attached._over.is_set():
            attached._put("log", {})

    old = signal.signal(signal.SIGALRM, interrupt)
    reader = threading.Thread(target=feed, daemon=True)
    reader.start()
    try:
        until = time.monotonic() + 30
        while interrupts < 1000 and time.monotonic() < until:
            with contextlib.suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00001, 0.0004))
                while True:
                    got += attached._next(0.02)[0] == "log"
            interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        attached._over.set()
        reader.join(300)
    assert got
    assert not reader.is_alive()


def test_what_is_read_waits_when_nobody_shows_it(attached, monkeypatch):
    monkeypatch.setattr(attach, "HELD", 3)
    reader = threading.Thread(target=lambda: [attached._put("log", n) for n in range(5)])
    reader.start()
    seen = []
    while len(seen) < 5:
        assert attached._queue.qsize() <= 3
        kind, value = attached._next(1.0)
        seen += [value] if kind else []
    reader.join(300)
    assert seen == [0, 1, 2, 3, 4]
