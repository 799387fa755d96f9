"""One agent a node, whatever becomes of the files that say so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agent import daemon
from agent.config import AgentConfig


@pytest.fixture
def config(tmp_path):
    return AgentConfig(
        state_dir=tmp_path / "state" / "agent",
        run_dir=tmp_path / "run" / "agent",
        socket=tmp_path / "run" / "agent.sock",
    )


def emptied(config):
    for path in config.run_dir.parent.iterdir():
        path.unlink()


DAMAGE = {
    "none": lambda config: None,
    "its files in /run are gone": emptied,
    "the run directory is gone": lambda config: shutil.rmtree(config.run_dir.parent),
    "its lock was moved away": lambda config: Path(config.run_dir.parent / "agent.lock").rename(
        config.run_dir.parent / "moved"
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_second_agent_is_refused_and_a_next_one_is_not(config, damage):
    with daemon._only_one(config):
        DAMAGE[damage](config)
        with (
            pytest.raises(daemon.AlreadyRunning, match="already running"),
            daemon._only_one(config),
        ):
            pytest.fail("law: there is one agent")
    with daemon._only_one(config):
        pass
