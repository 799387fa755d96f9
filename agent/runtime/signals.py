"""Names of signals, as images and Compose files write them."""

from __future__ import annotations

from agent.errors import Refusal
from specs.kernel import signal_number


def number_of(text: str) -> int:
    """Return the number of ``SIGTERM``, ``term``, ``15`` or ``SIGRTMIN+3``. Raises Refusal."""
    number = signal_number(text)
    if not number:
        raise Refusal(f"signal {text!r} does not exist")
    return number
