"""The one error of agent/runtime: a container runtime, or what it needs, did not do its work."""

from __future__ import annotations


class RuntimeFailure(Exception):
    """The message is for users.

    ``code`` 127 (not found) or 126 (found, but cannot be executed): trying again will not
    help. None: it may.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


def from_runtime(message: str) -> RuntimeFailure:
    """Return the failure a runtime's message tells of, with the shell's exit code for it."""
    text = message.strip().removeprefix("error: ")
    low = text.lower()
    command = "executable file" in low or "exec" in low.split(":")[0]
    if command and ("not found" in low or "no such file" in low):
        return RuntimeFailure(text, 127)
    if command and ("permission denied" in low or "exec format" in low or "directory" in low):
        return RuntimeFailure(text, 126)
    return RuntimeFailure(text)
