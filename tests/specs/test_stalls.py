"""The loop's watch: what holds it up is told with its stack; a busy machine is not told of."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import subprocess
import threading
import time

import pytest

from specs.kit import log, stalls
from tests import stalled


def compute(seconds: float) -> None:
    """Use the processor for so long, however long that takes."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        hashlib.sha256(b"x" * 1000)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


# Blocking calls, until the watch has seen enough of them: on a busy machine it looks rarely.


def call_that_sleeps(seconds: float) -> None:
    while seen() < seconds / 2:
        time.sleep(0.05)


def wait_for_another_thread(seconds: float) -> None:
    while seen() < seconds / 2:
        done = threading.Event()
        threading.Timer(seconds / 2, done.set).start()
        done.wait()


def run_a_program(seconds: float) -> None:
    while seen() < seconds / 2:
        subprocess.run(["sleep", str(seconds / 2)], check=True)


def seen() -> float:
    return WATCHES[-1]._blocked


WATCHES: list[stalls.Watch] = []


@pytest.fixture
def watches(monkeypatch):
    """Keep the watches that are made, for work that asks what they have seen."""

    class KeptWatch(stalls.Watch):
        def __init__(self, *words):
            super().__init__(*words)
            WATCHES.append(self)

    monkeypatch.setattr(stalls, "Watch", KeptWatch)
    yield
    WATCHES.clear()


def told(caplog, work, seconds, times=1):
    """Run ``work`` on a watched loop; return what the watch said."""
    caplog.clear()

    async def main():
        with stalls.watched():
            await asyncio.sleep(0.12)
            for _ in range(times):
                work(seconds)
                await asyncio.sleep(0)
            await asyncio.sleep(0.12)

    with caplog.at_level(logging.WARNING, logger="specs.kit.stalls"):
        stalls.run(main())
    return lines_of(caplog)


def lines_of(caplog):
    return [record for record in caplog.records if record.message == stalls.MESSAGE]


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        (compute, "cpu"),
        (call_that_sleeps, "blocked"),
        (wait_for_another_thread, "blocked"),
        (run_a_program, "blocked"),
    ],
)
def test_what_holds_the_loop_up_is_told_with_its_place(caplog, watches, work, kind):
    (line,) = told(caplog, work, 0.4)
    assert getattr(line, kind) >= 0.2, vars(line)
    assert work.__name__ in line.stack
    assert "main" in line.stack


@pytest.mark.parametrize(
    ("work", "seconds", "times"),
    [(compute, 0.002, 60), (sleep, 0.002, 60), (compute, 0.0, 500)],
)
def test_many_short_turns_are_no_stall(caplog, work, seconds, times):
    assert told(caplog, work, seconds, times) == []


def test_an_idle_loop_is_no_stall(caplog):
    assert told(caplog, compute, 0.0) == []


def test_a_starved_loop_is_no_stall(caplog):
    """The loop's thread gets a small part of one processor: its turns last, through no fault."""
    cpu = str(min(os.sched_getaffinity(0)))
    hogs = [
        subprocess.Popen(["taskset", "-c", cpu, "sh", "-c", "while :; do :; done"])
        for _ in range(2)
    ]
    longest, lines = 0.0, []

    def work(seconds):
        nonlocal longest
        begun = time.monotonic()
        compute(seconds)
        longest = max(longest, time.monotonic() - begun)

    def starved():
        me = threading.get_native_id()
        os.sched_setaffinity(me, {int(cpu)})
        os.setpriority(os.PRIO_PROCESS, me, os.getpriority(os.PRIO_PROCESS, me) + 8)
        until = time.monotonic() + 60
        while longest <= 2 * stalls.LIMIT and time.monotonic() < until:
            lines.extend(told(caplog, work, 0.02, 3))

    try:
        thread = threading.Thread(target=starved)
        thread.start()
        thread.join()
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert longest > 2 * stalls.LIMIT, "it was not starved"
    assert lines == []


def test_a_turn_without_end_is_told_before_its_end_and_the_worst_of_many_once(caplog, monkeypatch):
    monkeypatch.setattr(stalls, "STUCK", 0.2)
    turns = stalls._Turns()
    watch = stalls.Watch(turns, threading.get_ident(), threading.get_native_id())
    turns.turn, turns.began_cpu, now = 1, time.thread_time(), 100.0
    monkeypatch.setattr(watch, "_asleep", lambda: True)
    with caplog.at_level(logging.WARNING, logger="specs.kit.stalls"):
        for _ in range(20):
            watch.look(now)
            now += stalls.LOOK
    assert len(lines_of(caplog)) == 1, "told while it lasts, and not at every look"
    assert lines_of(caplog)[0].blocked > 0.2
    caplog.clear()
    for cpu in (0.1, 7.0, 0.3):
        turns.turn, turns.longest = turns.turn + 1, (turns.turn, cpu)
        watch.look(now)
        now += stalls.LOOK
    assert lines_of(caplog) == []
    now += stalls.TELL_AGAIN
    with caplog.at_level(logging.WARNING, logger="specs.kit.stalls"):
        watch.look(now)
    (line,) = lines_of(caplog)
    assert (line.cpu, line.others) == (7.0, 2)
    turns.close()


def test_a_frozen_watch_counts_nothing(monkeypatch):
    """A process that was frozen finds its loop in the same turn long after; nobody blocked it."""
    turns = stalls._Turns()
    watch = stalls.Watch(turns, threading.get_ident(), threading.get_native_id())
    monkeypatch.setattr(watch, "_asleep", lambda: True)
    turns.turn = 1
    watch.look(10.0)
    watch.look(70.0)
    assert watch._blocked <= 2 * stalls.LOOK
    turns.close()


async def test_a_loop_of_another_kind_is_left_alone():
    with stalls.watched():
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("cpu", "blocked", "fails"),
    [(0.06, 0.0, False), (0.2, 0.3, False), (0.4, 0.0, True), (0.0, 6.0, False), (0.0, 16.0, True)],
)
def test_what_fails_an_end_to_end_test(cpu, blocked, fails):
    said = log.JsonFormatter().format(
        logging.makeLogRecord(
            {"msg": stalls.MESSAGE, "levelname": "WARNING"}
            | dict(stalls.Stall(cpu, blocked, ("a", "b")).facts(0))
        )
    )
    assert bool(stalled.stalled(f"{said}\nnot json\n")) == fails
