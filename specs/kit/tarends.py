"""Whether a tar archive that passes by is whole, as far as its two ends tell. Stdlib only, pure.

tar itself takes one that is cut between two files, and one of nothing but zeros for an empty one.
"""

from __future__ import annotations

from typing import Final

_BLOCK: Final = 512  # bytes of a head
_END: Final = bytes(2 * _BLOCK)


class TarEnds:
    """Sees an archive piece by piece."""

    def __init__(self) -> None:
        self._first = b""
        self._last = b""

    def see(self, piece: bytes) -> None:
        """Take note of the next piece."""
        if len(self._first) < _BLOCK:
            self._first += piece[: _BLOCK - len(self._first)]
        self._last = (self._last + piece[-len(_END) :])[-len(_END) :]

    def beginning(self) -> str:
        """Return what is wrong with its beginning as far as that is known; "" = nothing."""
        blank = len(self._first) == _BLOCK and not any(self._first)
        return "it begins with nothing but zeros" if blank else ""

    def fault(self) -> str:
        """Return what is wrong with it when all has passed; "" = nothing."""
        if not self._first:
            return "it is empty"
        return self.beginning() or ("" if self._last == _END else "its end is missing")
