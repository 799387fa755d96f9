"""The variables of a project and where each came from.

The process environment wins over env files, which win over nothing. Built by
:mod:`specs.compose.reading.discovery`; asked by interpolation, ``environment`` pass-through
and env files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

PROJECT_NAME = "COMPOSE_PROJECT_NAME"


class Environment(Mapping[str, str]):
    """Variables with sources; a mapping, so that it can be passed through as one."""

    def __init__(self, values: Mapping[str, str], source: str = "environment") -> None:
        self._values = dict(values)
        self._sources = dict.fromkeys(self._values, source)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def source(self, name: str) -> str:
        """Return where the variable was set: ``environment`` or ``FILE:LINE``."""
        return self._sources.get(name, "unset")

    def set(self, name: str, value: str, source: str) -> None:
        self._values[name] = value
        self._sources[name] = source

    def add(self, values: Mapping[str, str], sources: Mapping[str, str]) -> None:
        """Add what is not set yet."""
        for name, value in values.items():
            if name not in self._values:
                self.set(name, value, sources.get(name, ""))

    def copy(self) -> Environment:
        made = Environment({})
        made._values = dict(self._values)
        made._sources = dict(self._sources)
        return made
