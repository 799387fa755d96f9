"""Commands that run inside a container after its start and before its stop.

Part of the compiler of services; the agent's ``tasks/hooking.py`` runs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.compile.values import mapping, text, words
from specs.stack import Hook

if TYPE_CHECKING:
    from specs.compile.verdicts import Verdicts

Json = dict[str, Any]


def hooks(path: str, raw: Json, key: str, verdicts: Verdicts) -> tuple[Hook, ...]:
    """Return the hooks below ``key``, in their order; one without a command is refused."""
    found = []
    for index, entry in enumerate(raw.get(key) or ()):
        hook = mapping(entry)
        command = words(hook.get("command"))
        if not command:
            verdicts.refuse(
                f"{path}.{key}[{index}]", "the hook has no command", "add command: [...]"
            )
            continue
        environment = mapping(hook.get("environment"))
        found.append(
            Hook(
                command=command,
                user=text(hook.get("user")),
                privileged=bool(hook.get("privileged")),
                working_dir=hook.get("working_dir") or None,
                environment={k: str(v) for k, v in environment.items() if v is not None},
            )
        )
    return tuple(found)
