"""Names of signals, as images and Compose files write them."""

from __future__ import annotations

import signal

from agent.errors import Refusal
from specs.names import is_number


def number_of(text: str) -> int:
    """Return the number of ``SIGTERM``, ``term``, ``15`` or ``SIGRTMIN+3``. Raises Refusal."""
    name = text.strip().upper()
    if is_number(name):
        number = int(name)
    else:
        name = name.removeprefix("SIG")
        base, plus, offset = name.partition("+")
        try:
            number = int(signal.Signals[f"SIG{base}"])
            number += int(offset) if plus else 0
        except (KeyError, ValueError):
            raise Refusal(f"signal {text!r} does not exist") from None
    if not 0 < number < signal.NSIG:
        raise Refusal(f"signal {text!r} does not exist")
    return number
