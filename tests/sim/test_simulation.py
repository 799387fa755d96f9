"""The simulation: seeds hold every law, are the same each time, and notice planted defects."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim import command, mutants, schedule
from tests.sim.laws import LAWS
from tests.sim.run import run
from tests.sim.shrink import shrink
from tests.sim.user import files
from tests.sim.world import HOSTS

# As many as cost some 70 s of a processor: a simulated second costs 12.5 ms on a quiet machine.
SEEDS = range(1, 73)
# Of the mutants those that a short run notices; the slow lane plants them all.
QUICK = {"a5-network-goes-first": 1, "increments-not-kept": 1, "address-twice": 1}


def test_without_faults_every_law_holds():
    found = run(1, only=())
    assert found.broken is None, found.words
    assert found.checks > 200


def test_a_seed_is_large_enough():
    tasks = sum(
        service["deploy"].get("replicas", HOSTS)
        for file in files().values()
        for service in file["services"].values()
    )
    assert HOSTS >= 5
    assert tasks >= 30
    for seed in range(100):
        events = schedule.make(seed, 60.0)
        faults = [event for event in events if event.what in schedule.FAULT_KINDS]
        assert len(faults) >= 20
        assert len(events) > len(faults), "users do something, too"


@pytest.mark.parametrize("seed", SEEDS)
def test_every_law_holds(seed):
    found = run(seed)
    assert found.broken is None, f"{found.words}\npython -m tests.sim --seed {seed} --shrink"


def test_the_same_seed_is_the_same_whatever_the_hashes():
    def told(hashes: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", "2", "--length", "20"],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.splitlines()[-1].partition("CPU)")[2]

    first = told("0")
    assert first
    assert told("1") == first
    assert told("0") == first


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_defect_is_noticed(name):
    with mutants.planted(name):
        found = run(QUICK[name])
    assert found.broken is not None, f"{name} lives"
    assert found.broken.law in LAWS


def test_there_are_enough_mutants():
    assert len(mutants.ALL) >= 20
    assert sum(name[0] == "a" and name[1].isdigit() for name in mutants.ALL) == 7


def test_the_docs_name_every_mutant():
    text = (Path(__file__).parents[2] / "docs/simulation.md").read_text()
    for name, mutant in mutants.ALL.items():
        assert f"| `{name}` | {mutant.what} |" in text


def test_counts_go_on_where_they_were(tmp_path, capsys):
    counts = tmp_path / "counts.json"
    more = ["--length", "1", "--counts", str(counts)]
    assert command.main(["--seeds", "1-2", *more]) == 0
    assert command.main(["--seeds", "1-3", *more]) == 0
    assert "3 seeds, 0 broken" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", mutants.ALL)
def test_every_planted_defect_is_noticed(name):
    assert mutants.catch(name) is not None, f"{name} lives"


@pytest.mark.slow
def test_a_failing_seed_is_shrunk():
    with mutants.planted("a5-network-goes-first"):
        found = run(1)
        assert found.broken is not None
        least = shrink(found, length=60.0)
    assert least.broken is not None
    assert least.broken.law == found.broken.law
    assert len(least.events) < len(found.events) / 3


@pytest.mark.slow
def test_a_shrunk_seed_is_replayed_by_the_command_that_is_printed(capsys):
    """The last line is what to type: it breaks the same law, and its trace says what happened."""
    with_defect = ["--seed", "1", "--length", "8", "--mutant", "adopts-nothing"]
    assert command.main([*with_defect, "--shrink"]) == 1
    *told, again = capsys.readouterr().out.splitlines()
    law = next(line for line in told if line.startswith("seed 1: law: ")).partition(" (at ")[0]
    words = shlex.split(again)
    assert words[:3] == ["python", "-m", "tests.sim"]
    assert len(words[words.index("--only") + 1].split(",")) < len(schedule.make(1, 8.0))
    assert command.main(words[3:]) == 1
    trace = capsys.readouterr().out
    assert f" LAW {law.split(': ')[2]} " in trace
    assert f"\nseed 1: law: {law.split(': ')[2]}: " in trace
    assert " event " in trace


@pytest.mark.slow
def test_long_seeds():
    for seed in range(1, 101):
        found = run(seed, length=300.0)
        assert found.broken is None, found.words
