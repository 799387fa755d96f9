"""The first request of a command that may have to start the controller: `up`, `run`.

It is simply made: nearly always a controller answers. Only where none does is what can start one
loaded, and asked to (``orchestrator.embedded.daemons``), or to say why it may not.
"""

from __future__ import annotations

from orchestrator.cli import said
from orchestrator.cli.show import meanwhile
from orchestrator.client.errors import NoController
from orchestrator.client.places import kept_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from orchestrator.client.client import Client

    T = TypeVar("T")


def send_files(client: Client, request: dict[str, Any], step: Callable[[str], None]) -> None:
    """Send what a request (specs.api.Deploy) needs of this machine, where that is no node."""
    if client.ssh:
        from orchestrator.cli import sending

        sending.from_here(client, request, step)


def first(
    client: Client,
    ask: Callable[[], T],
    *,
    step: Callable[[str], None] | None = None,
    quiet: bool = False,
) -> T:
    """Ask; where no controller answers, start one here if that is allowed, and ask again.

    ``step`` is told what takes its time; without it that is said here. Raises ClientError.
    """
    if kept_alive() or not client.local:  # else a supervisor is to be replaced, which lives or not
        client.patient = False
        try:
            return ask()
        except NoController:
            pass
        finally:
            client.patient = True
    from orchestrator.embedded import daemons

    def say(text: str) -> None:
        if not quiet:
            said.tell(text)

    if step is not None:
        daemons.ensure(client, say=say, step=step)
    else:
        with meanwhile.telling(quiet=quiet) as now:
            now("asking the controller")
            daemons.ensure(client, say=say, step=now)
    return ask()
