"""How output is wished: --ansi and --progress of this command line, else Compose's variables.

``orchestrator.cli.main`` says what was typed; whoever prints asks. Flags win over the environment.
"""

from __future__ import annotations

import contextlib
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

ANSI = ("auto", "never", "always")
PROGRESS = ("auto", "tty", "plain", "json", "quiet")

_typed: dict[str, str | None] = {}


def typed(flags: argparse.Namespace) -> None:
    """Remember what this command line says, and forget what another one said."""
    _typed.update(ansi=flags.ansi, progress=flags.progress)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Show no progress for as long as the block runs; what is asked for around it stays."""
    before = _typed.get("progress")
    _typed["progress"] = "quiet"
    try:
        yield
    finally:
        _typed["progress"] = before


def ansi() -> str:
    """Return auto, never or always."""
    return _typed.get("ansi") or _known(os.environ.get("COMPOSE_ANSI"), ANSI)


def progress() -> str:
    """Return auto, tty, plain, json or quiet."""
    return _typed.get("progress") or _known(os.environ.get("COMPOSE_PROGRESS"), PROGRESS)


def _known(word: str | None, words: tuple[str, ...]) -> str:
    return word if word in words else words[0]
