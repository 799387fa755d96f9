"""One question to many nodes at once: what they answered, and why the others did not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from orchestrator.errors import NotFound, RequestError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

T = TypeVar("T")


async def ask_each(
    nodes: Iterable[str],
    question: Callable[[str], Awaitable[T]],
    *,
    seconds: float,
    older: str,
) -> tuple[dict[str, T], dict[str, str]]:
    """Return the answers, and the reasons of those that gave none, by node id.

    ``seconds``: how long each has. ``older``: the reason of an agent that knows no such question.
    """
    answers: dict[str, T] = {}
    reasons: dict[str, str] = {}

    async def one(node: str) -> None:
        try:
            async with asyncio.timeout(seconds):
                answers[node] = await question(node)
        except NotFound:
            reasons[node] = older
        except RequestError as error:
            reasons[node] = error.detail
        except TimeoutError:
            reasons[node] = f"no answer within {seconds:.0f} s"

    async with asyncio.TaskGroup() as group:
        for node in nodes:
            group.create_task(one(node), name=f"asking {node}")
    return answers, reasons
