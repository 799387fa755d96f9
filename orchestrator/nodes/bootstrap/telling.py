"""Lines of progress of what is done to machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from specs.api import Progress

if TYPE_CHECKING:
    from specs.kit.clock import Clock


class Lines:
    """Makes them; ``said`` is the last of what the machine itself said."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(
        self,
        kind: Literal["step", "warning", "end"],
        node: str,
        message: str,
        *,
        hint: str = "",
        ok: bool | None = None,
        said: tuple[str, ...] = (),
        host_key: str = "",
    ) -> Progress:
        return Progress(
            kind=kind,
            time=self._clock.wall(),
            node=node,
            message=message,
            hint=hint,
            ok=ok,
            log_tail=said,
            host_key=host_key,
        )
