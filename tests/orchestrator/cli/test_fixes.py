"""What `why` proposes and is a command can be typed: our own parser takes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.cli import parsers

GOLDENS = Path(__file__).parents[1] / "control" / "why"
PROPOSED = re.compile(r"^ +(?:fix|or): (.*)$", re.MULTILINE)
COMMAND = re.compile(r"\bcorral (.*?)(?= and corral |$)")


def commands():
    """Return every command the goldens propose, and what is proposed of volumes that moved."""
    said = [
        line
        for file in sorted(GOLDENS.glob("*.txt"))
        for line in PROPOSED.findall(file.read_text())
    ]
    said += [
        "corral volume move app_data --to a and corral volume move app_more --to a",
        "corral volume restore app_data FILE --node a",
        "corral volume create --node a app_data",
    ]
    return sorted({command for line in said for command in COMMAND.findall(line)})


def test_the_goldens_propose_commands():
    assert len(commands()) > 10


@pytest.mark.parametrize("command", commands())
def test_a_proposed_command_is_one(command):
    asked = parsers.global_parser().parse_known_args(command.split())[0]
    words = [*asked.words] if hasattr(asked, "words") else command.split()
    parsers.command_parser(words[0], words[1:]).parse_args(words[1:])
