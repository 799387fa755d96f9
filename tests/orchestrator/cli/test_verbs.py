"""What people type who know other tools: a command of ours, or the words that lead to one."""

from __future__ import annotations

import argparse
import importlib
import json
import re

import pytest
from compose_words import GLOBAL, VERBS
from docker_words import OBJECTS
from docker_words import VERBS as DOCKERS_VERBS

from orchestrator.cli import elsewhere, main, parsers, wishes
from orchestrator.cli.registry import COMMANDS, KNOWN_ELSEWHERE
from orchestrator.cli.show import board, watch


def named(words):
    return re.findall(
        r"corral (?:-\S+ (?:[A-Z]+ )?)*([a-z]+)", words.replace("corral --help", "corral up")
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_of_compose_is_here_or_leads_here(verb, corral):
    if verb in COMMANDS:
        assert verb not in KNOWN_ELSEWHERE
        return
    done = corral(verb, "web")
    assert done.code == 2
    assert f"no command '{verb}'" in done.err
    found = named(done.err.split("hint:")[1])
    assert found, "no command of ours is named"
    assert set(found) <= set(COMMANDS)


def flags_of(verb):
    """Return every flag of ours that stands behind the verb; of none, those before it."""
    if not verb:
        return set(parsers.global_parser()._option_string_actions)
    parser = argparse.ArgumentParser()
    importlib.import_module(f"orchestrator.cli.commands.{COMMANDS[verb][0]}").describe(parser)
    return set(parser._option_string_actions)


@pytest.mark.parametrize("verb", ["", *(verb for verb in VERBS if verb in COMMANDS)])
def test_every_flag_of_compose_is_here_or_leads_here(verb):
    """What is missing has its words, and what has words is missing: either side may drift."""
    theirs = set((VERBS[verb] if verb else GLOBAL).split())
    told = {flag for of, flag in elsewhere.FLAGS if of == verb}
    assert theirs - flags_of(verb) == told & theirs
    assert not told & flags_of(verb), "there are words for a flag that is here"


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb in COMMANDS])
def test_every_verb_has_its_help(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main.main([verb, "--help"])
    assert ended.value.code == 0
    assert f"usage: corral {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("words", elsewhere.WORDS)
def test_what_other_tools_call_it_leads_to_a_command_of_ours(words, corral):
    if words in COMMANDS:  # another part of corral has it by now
        pytest.skip("it exists")
    if words.split()[0] in COMMANDS and words.split()[0] != "node":
        pytest.skip("the group exists, and knows its own actions")
    done = corral(*words.split())
    hint = done.err.split("hint: ")[1].strip()
    assert (done.code, hint) == (2, elsewhere.WORDS[words])
    assert set(named(hint)) <= set(COMMANDS), hint
    assert named(hint) or "in the file" in hint or "by themselves" in hint or "login" in hint


SLIPS = {
    "lgos": ["logs"],
    "upp": ["up"],
    "pss": ["ps"],
    "restat": ["restart"],
    "exex": ["exec"],
    "scael": ["scale"],
    "conf": ["config"],
    "stat": ["stats", "state"],
    "dwon": ["down"],
    "eventss": ["events"],
    # words that only look alike do another job
    "statistics": [],
    "reset": [],
    "report": [],
    "x": [],
    "deploys": [],
}


@pytest.mark.parametrize("word", SLIPS)
def test_a_slip_of_the_finger_and_nothing_else_is_guessed(word):
    assert elsewhere.nearest(word, list(COMMANDS)) == SLIPS[word]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("ps --formt x", "did you mean --format?"),
        ("ps --no-trnc", "did you mean --no-trunc?"),
        ("logs --folow", "did you mean --follow?"),
        ("--anis never ps", "did you mean --ansi?"),
        ("ps --ansi never", "corral --ansi ... ps"),
        ("ps --size", "corral stats"),
        ("--dry-run up", "corral plan"),
        ("down --dry-run", "corral plan"),
        ("node update x", "corral node label"),
        ("node lss", "did you mean ls?"),
        ("node frobnicate", "one of ls, inspect"),
        ("--progress fancy up", "one of auto, tty"),
        ("stack deploy -c f s", "corral -f FILE -p STACK up -d"),
        ("up --xyz", "corral up --help"),
        ("attch web", "corral attach"),
        ("frobnicate", "corral --help"),
    ],
)
def test_an_unknown_flag_or_action_names_what_does_that_job(corral, argv, says):
    done = corral(*argv.split())
    assert done.code == 2
    assert says in done.err.split("hint: ")[1]


# Flags before the verb


@pytest.mark.parametrize(
    ("given", "environment", "terminal", "coloured"),
    [
        (None, {}, True, True),
        (None, {}, False, False),
        (None, {"NO_COLOR": "1"}, True, False),
        (None, {"COMPOSE_ANSI": "never"}, True, False),
        ("always", {}, False, True),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"COMPOSE_ANSI": "always"}, True, False),
        ("auto", {"COMPOSE_ANSI": "always"}, False, False),
        (None, {"COMPOSE_ANSI": "purple"}, True, True),
    ],
)
def test_ansi(monkeypatch, given, environment, terminal, coloured):
    from orchestrator.cli.session import wants_colour

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    wishes.typed(argparse.Namespace(ansi=given, progress=None))
    assert wants_colour(terminal) is coloured
    wishes.typed(argparse.Namespace(ansi=None, progress=None))


@pytest.mark.parametrize(
    ("given", "variable", "kind"),
    [
        (None, None, watch.Plain),
        ("plain", "quiet", watch.Plain),
        ("quiet", None, watch.Quiet),
        (None, "quiet", watch.Quiet),
        ("json", None, watch.JsonLines),
        (None, "json", watch.JsonLines),
    ],
)
def test_progress(monkeypatch, given, variable, kind):
    if variable:
        monkeypatch.setenv("COMPOSE_PROGRESS", variable)
    wishes.typed(argparse.Namespace(ansi=None, progress=given))
    view = watch.make_view(board.Board("shop", "release 1"))
    view.close()
    wishes.typed(argparse.Namespace(ansi=None, progress=None))
    assert type(view) is kind


def test_progress_as_json_is_an_object_a_change(capsys):
    view = watch.JsonLines()
    view.update(["web is starting", "warning: web is late"])
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["text"]) for line in lines] == [
        ("info", "web is starting"),
        ("warning", "web is late"),
    ]


def test_what_has_no_effect_is_said(fake, corral):
    fake.on("GET", "/v1/stacks", {"stacks": []})
    done = corral("--parallel", "4", "--compatibility", "ls")
    assert done.code == 0
    assert "--parallel has no effect" in done.err
    assert "--compatibility has no effect" in done.err


# Docker's objects


def actions_of(group):
    """Return action -> its parser, of a group of ours."""
    found = {}
    for words in ([], ["ls"]) if group == "config" else ([],):  # configs' stand behind the word
        parser = parsers.command_parser(group, words)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found.update(action.choices)
    return found


GROUPS = [group for group in OBJECTS if group in COMMANDS]
ACTIONS = [(group, action) for group, actions in OBJECTS.items() for action in actions]


@pytest.mark.parametrize(("group", "action"), ACTIONS, ids=" ".join)
def test_every_verb_of_docker_s_objects_is_here_or_leads_here(group, action, corral):
    if group in COMMANDS and action in actions_of(group):
        assert f"{group} {action}" not in elsewhere.WORDS
        return
    done = corral(group, action, "x")
    assert done.code == 2
    hint = done.err.split("hint: ")[1]
    assert set(named(hint)) <= set(COMMANDS)
    assert named(hint) or "in the file" in hint or "login" in hint or "by themselves" in hint, hint
    if group in COMMANDS:
        assert hint.strip() == elsewhere.WORDS[f"{group} {action}"]


@pytest.mark.parametrize("verb", DOCKERS_VERBS)
def test_every_verb_of_docker_is_here_or_leads_here(verb, corral):
    if verb in COMMANDS:
        return
    done = corral(verb, "x")
    assert done.code == 2
    hint = done.err.split("hint: ")[1]
    assert "--help lists" not in hint
    assert named(hint) or "in the file" in hint or "login" in hint


@pytest.mark.parametrize(
    ("group", "action"), [one for one in ACTIONS if one[0] in COMMANDS], ids=" ".join
)
def test_every_flag_of_docker_s_objects_is_here_or_leads_here(group, action):
    """What is missing has its words, and what has words is missing: either side may drift."""
    ours = actions_of(group)
    if action not in ours:
        return
    theirs = set(OBJECTS[group][action].split())
    told = {flag for of, flag in elsewhere.OBJECT_FLAGS if of == f"{group} {action}"}
    here = set(ours[action]._option_string_actions)
    assert theirs - here == told & theirs
    assert not told & here


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("network create --gateway 10.0.0.1 x", "a container's way out is its node"),
        ("secret create --driver x a b", "sealed by corral itself"),
        ("config prune", "corral config rm NAME"),
        ("exec --env-file f web true", "corral exec -e KEY=VALUE"),
        ("run --env-file f web", "corral run --env-from-file FILE"),
        ("run --network x web", "networks: of the service in the file"),
        ("stop -s TERM web", "corral kill -s SIGNAL"),
        ("ps --env-file f", "corral --env-file ... ps"),
    ],
)
def test_a_flag_of_docker_says_what_to_type(corral, words, says):
    done = corral(*words.split())
    assert done.code == 2
    assert says in done.err.split("hint: ")[1]
