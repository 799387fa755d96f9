"""Say what is being done when it takes longer than a moment: nobody wonders for a whole second.

`up` reads files, starts daemons and hands over a release before there is any progress to
show. Each of these is named once, and only when it lasts.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial

from orchestrator.cli import said

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOMENT = 0.4  # seconds; the interpreter's own start comes on top of it


class Meanwhile:
    """Calling it names the next step, and ends the one before."""

    def __init__(self, say: Callable[[str], None], moment: float = MOMENT) -> None:
        self._say = say
        self._moment = moment
        self._next = threading.Condition()
        self._step: str | None = ""
        self._thread = threading.Thread(target=self._tell, name="corral-meanwhile", daemon=True)
        self._thread.start()

    def __call__(self, step: str) -> None:
        self._turn(step)

    def close(self) -> None:
        """Say nothing any more."""
        self._turn(None)
        self._thread.join()

    def _turn(self, step: str | None) -> None:
        with self._next:
            self._step = step
            self._next.notify()

    def _tell(self) -> None:
        told = ""
        with self._next:
            while self._step is not None:
                step = self._step
                over = partial(self._over, step)
                lasts = not self._next.wait_for(over, self._moment)
                if lasts and step and step != told:
                    told = step
                    self._say(f"corral: {step}")
                if lasts:
                    self._next.wait_for(over)

    def _over(self, step: str) -> bool:
        return self._step != step


@contextmanager
def telling(*, quiet: bool = False) -> Iterator[Meanwhile]:
    """Tell on stderr, unless quiet is asked for."""

    def say(text: str) -> None:
        if not quiet:
            said.tell(text)

    meanwhile = Meanwhile(say)
    try:
        yield meanwhile
    finally:
        meanwhile.close()
