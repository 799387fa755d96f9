"""What people type who know Docker Compose: a command of ours, or the words that lead to one."""

from __future__ import annotations

import re

import pytest

from orchestrator.cli.registry import COMMANDS, KNOWN_ELSEWHERE

COMPOSE = """
attach build commit config convert cp create down events exec export images kill logs ls pause port
ps publish pull push restart rm run scale start stats stop top unpause up version volumes wait watch
"""


@pytest.mark.parametrize("verb", COMPOSE.split())
def test_every_verb_of_compose_is_here_or_leads_here(verb, corral):
    if verb in COMMANDS:
        assert verb not in KNOWN_ELSEWHERE
        return
    done = corral(verb, "web")
    assert done.code == 2
    assert f"no command '{verb}'" in done.err
    named = re.findall(r"corral (?:-\S+ )*([a-z]+)", done.err.split("hint:")[1])
    assert named, "no command of ours is named"
    assert set(named) <= set(COMMANDS)
