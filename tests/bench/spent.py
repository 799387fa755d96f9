"""Says what tests cost: processor seconds by file, each test's children included.

``python -m pytest -p tests.bench.spent tests/specs`` ends with a table: what came before the first
test (imports, collection), then the files, the dearest first. Seconds are user + system of the
process and of what it waited for, so a busy machine changes them little; of commands that are
forked warm nothing is in them. ``CORRAL_SPENT=path`` adds one JSON line a test to that file.
With ``CORRAL_SPENT_GROUP=/sys/fs/cgroup/cpuacct/NAME/cpuacct.usage`` (the process is in that group)
all that was started counts, but for what lab hosts have in groups of their own.
"""

from __future__ import annotations

import json
import os
import resource
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _pytest.terminal import TerminalReporter

SHOWN = 40
GROUP = Path(os.environ["CORRAL_SPENT_GROUP"]) if "CORRAL_SPENT_GROUP" in os.environ else None
_by_file: Counter[str] = Counter()
_tests: Counter[str] = Counter()
_before = 0.0


def seconds() -> float:
    """Return what this process and what it started took so far."""
    if GROUP is not None:
        return int(GROUP.read_text()) / 1e9
    mine, theirs = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


def pytest_collection_finish() -> None:
    global _before  # noqa: PLW0603 - a plugin module is its own state
    _before = seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    began = seconds()
    result = yield
    took = seconds() - began
    file = item.nodeid.partition("::")[0]
    _by_file[file] += took
    _tests[file] += 1
    if path := os.environ.get("CORRAL_SPENT"):
        with Path(path).open("a") as out:
            out.write(json.dumps([item.nodeid, round(took, 4)]) + "\n")
    return result


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    tell = terminalreporter.write_line
    tell(f"{_before:8.1f} s  before the first test")
    tell(f"{sum(_by_file.values()):8.1f} s  {sum(_tests.values())} tests")
    for file, took in _by_file.most_common(SHOWN):
        tell(f"{took:8.2f} s  {_tests[file]:5} tests  {file}")
