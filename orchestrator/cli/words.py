"""Every verb's flags and words as data, read from the parsers themselves.

Completion and the man page are made of it. Reading all parsers imports all commands (half a
second), so the result is kept in a file that counts as long as the commands' own files are as
they were: nothing is to be generated, and nothing can drift. Whatever is wrong with the file,
the parsers are asked.
"""

from __future__ import annotations

import json
import os

from orchestrator.cli import names, registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

HIDDEN = frozenset({"agent", "supervise"})  # what a person types only by mistake


def table() -> dict[str, Any]:
    """Return verb ("" = before the verb) -> flags, words, actions."""
    stamp = _stamp()
    path = f"{os.path.dirname(names.cache_file())}/words.json"
    try:
        with open(path, encoding="utf-8") as file:
            kept = json.load(file)
        if kept["stamp"] == stamp:
            verbs: dict[str, Any] = kept["verbs"]
            return verbs
    except (OSError, ValueError, KeyError, TypeError):
        pass
    verbs = collect()
    draft = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(draft, "w", encoding="utf-8") as file:
            json.dump({"stamp": stamp, "verbs": verbs}, file)
        os.replace(draft, path)
    except OSError:
        pass  # it is slower without, no more
    return verbs


def _stamp() -> list[Any]:
    """Return what changes whenever a parser may have changed."""
    base = os.path.dirname(os.path.abspath(__file__))
    found: list[Any] = []
    for folder in (base, f"{base}/commands", f"{base}/show"):
        with os.scandir(folder) as entries:
            files = [entry for entry in entries if entry.name.endswith(".py")]
            found += sorted((entry.name, entry.stat().st_mtime_ns) for entry in files)
    return [list(item) for item in found]


def collect() -> dict[str, Any]:
    """Return the table, from the parsers."""
    from orchestrator.cli import parsers

    found = {"": _described(parsers.global_parser())}
    for name, (_, text) in registry.COMMANDS.items():
        parser = parsers.command_parser(name)
        found[name] = {**_described(parser), "help": text}
    for name, word in registry.SECOND:  # `config rm`: another command, behind its first word
        actions = _described(parsers.command_parser(name, (word,)))["actions"]
        if word in actions:  # others of Docker's words are only told what to type
            found[name].setdefault("second", {})[word] = actions[word]
    return found


def _described(parser: argparse.ArgumentParser) -> dict[str, Any]:
    import argparse

    flags: dict[str, Any] = {}
    positional: list[dict[str, Any]] = []
    actions: dict[str, Any] = {}
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            texts = {choice.dest: choice.help for choice in action._choices_actions}  # noqa: SLF001 - as above
            actions = {
                name: {**_described(sub), "help": texts.get(name) or ""}
                for name, sub in action.choices.items()
            }
            continue
        one: dict[str, Any] = {
            "optional": action.nargs in ("?", "*", argparse.REMAINDER),
            "help": "" if action.help in (None, argparse.SUPPRESS) else str(action.help),
            "takes": _metavar(action) if action.nargs != 0 else "",
            "choices": [str(choice) for choice in action.choices or ()],
            "many": action.nargs in ("*", "+"),
            "rest": action.nargs in (argparse.REMAINDER, argparse.PARSER),
        }
        if action.option_strings:
            words = list(action.option_strings)
            flags |= {word: {**one, "same": words} for word in words}
        elif action.help != argparse.SUPPRESS:
            *first, one["takes"] = one["takes"].split(" ")
            # exec: what is one list to argparse is SERVICE, and then somebody else's command
            single = {"rest": False, "optional": False}
            positional += [{**one, **single, "takes": word} for word in first]
            positional.append(one)
    return {"flags": flags, "words": positional, "actions": actions}


def _metavar(action: argparse.Action) -> str:
    if action.metavar:
        return str(action.metavar)
    return "" if action.choices else action.dest.upper().replace("_", "-")
