"""What the client raises: nobody answered, the controller refused, or it makes no sense.

The classes of a refusal follow its HTTP status; what the controller itself raises is in
orchestrator.errors. A class exists because some command acts on it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class ClientError(Exception):
    """Root of what the client raises; ``hint`` says what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


class BadHost(ClientError):
    """CORRAL_HOST or --host cannot be used."""


class NoAnswer(ClientError):
    """Nobody answered, or the answer broke off. Trying again may help."""


class NoController(NoAnswer):
    """Nothing listens on the controller's socket."""


class ControllerElsewhere(NoController):
    """Nor will anything: this machine is a node of a cluster that is led from another one."""


class Forbidden(ClientError):
    """The socket is there, but this user may not use it."""


class BadAnswer(ClientError):
    """The answer is not what this version understands."""


class ApiRefusal(ClientError):
    """The controller answered with a problem (RFC 9457)."""

    def __init__(self, problem: Mapping[str, Any], status: int) -> None:
        self.status = status
        self.type = str(problem.get("type", ""))
        self.detail = str(problem.get("detail", ""))
        self.problems: list[dict[str, Any]] = list(problem.get("problems") or ())
        title = str(problem.get("title") or f"the controller answered {status}")
        # The detail is a whole sentence; the title only says of which kind it is.
        super().__init__(self.detail or title, hint=str(problem.get("hint", "")))


class ApiNotFound(ApiRefusal):
    """What was asked for does not exist."""


class ApiConflict(ApiRefusal):
    """It changed meanwhile, or another operation is under way."""


class ApiInvalid(ApiRefusal):
    """The input is refused; ``problems`` holds the findings."""


BY_STATUS: dict[int, type[ApiRefusal]] = {
    400: ApiInvalid,
    404: ApiNotFound,
    409: ApiConflict,
    422: ApiInvalid,
}
