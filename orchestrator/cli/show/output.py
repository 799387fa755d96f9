"""Container output as Compose prints it: `web-1  | line`, a colour per container.

Used by `logs` and the attached `up`. Pure: lines in, text out.
"""

from __future__ import annotations

from orchestrator.cli.show import times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

# Compose's order: cyan, yellow, green, magenta, blue, then the bright ones.
COLOURS = ("36", "33", "32", "35", "34", "96", "93", "92", "95", "94")


class Painter:
    """Gives each container the next colour at its first line and aligns the names."""

    def __init__(
        self,
        *,
        colour: bool = False,
        prefix: bool = True,
        timestamps: bool = False,
        names: Iterable[str] = (),
    ) -> None:
        self.colour = colour
        self.prefix = prefix
        self.timestamps = timestamps
        self._width = max((len(name) for name in names), default=0)
        self._colours: dict[str, str] = {}

    def expect(self, names: Iterable[str]) -> None:
        """Make room for names that will come, so that lines stay aligned."""
        self._width = max([self._width, *(len(name) for name in names)])

    def text(self, line: Mapping[str, Any]) -> str:
        """Return one log line as it is printed."""
        body = str(line.get("line", ""))
        if self.timestamps:
            body = f"{times.rfc3339(float(line.get('time') or 0.0))} {body}"
        if not self.prefix:
            return body
        return f"{self.mark(str(line.get('name', '')))}{body}"

    def mark(self, name: str) -> str:
        """Return the prefix of a container's lines."""
        self.expect((name,))
        shown = f"{name:<{self._width}}  | "
        if not self.colour:
            return shown
        code = self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
        return f"\x1b[{code}m{shown}\x1b[0m"
