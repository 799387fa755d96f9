"""What a command raises to end with a message instead of a traceback."""

from __future__ import annotations

ERROR = 1
USAGE = 2
INTERRUPTED = 130


class CliError(Exception):
    """The command failed: what and where in the message, the next command in ``hint``."""

    def __init__(self, message: str, hint: str = "", *, code: int = ERROR) -> None:
        self.hint = hint
        self.code = code
        super().__init__(message)
