"""What the controller refuses or cannot do, in words a user can act on.

Raised by control, dispatch, nodes and the API's own handlers; turned into
problem+json in exactly one place (api/problems.py). A class exists because some
caller acts on it::

    RequestError
    +-- NotFound      there is no such thing; asking again will not help
    +-- Conflict      the thing is not in a state for this; look, then decide
    +-- Invalid       the request is wrong; ``problems`` say where and what to write
    +-- Unavailable   right now it cannot be done; the same request may work later
        +-- Unkept    a node's disk does not take what it is told; what runs there runs on

``detail`` says what happened to which object, ``hint`` what to do next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from specs.problems import Problem


class RequestError(Exception):
    """Root: a refusal with words for the user, and the HTTP status it travels with."""

    type: ClassVar[str]
    title: ClassVar[str]
    status: ClassVar[int]

    def __init__(self, detail: str, *, hint: str = "") -> None:
        self.detail = detail
        self.hint = hint
        super().__init__(detail)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return the findings in the user's files, where there are any."""
        return ()


class NotFound(RequestError):
    type, title, status = "not-found", "Not found", 404


class Conflict(RequestError):
    type, title, status = "conflict", "Conflict", 409


class Unavailable(RequestError):
    type, title, status = "unavailable", "Not possible right now", 503


class Unkept(Unavailable):
    """A node answers, and its disk does not keep instructions: it is listened to all the same."""


class Invalid(RequestError):
    """The request is wrong. ``problems`` holds every finding, errors and warnings."""

    type, title, status = "invalid", "Invalid request", 422

    def __init__(
        self, problems: Sequence[Problem] = (), *, detail: str = "", hint: str = ""
    ) -> None:
        self._problems = tuple(problems)
        errors = [p for p in problems if p.severity == "error"]
        first = str(errors[0].message) if errors else "the request is not valid"
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(detail or first + more, hint=hint)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self._problems
