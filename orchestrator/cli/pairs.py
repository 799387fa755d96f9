"""KEY=VALUE words of flags that may be repeated: options, labels."""

from __future__ import annotations

from orchestrator.cli.errors import USAGE, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def pairs(words: Iterable[str], flag: str) -> dict[str, str]:
    """Return the mapping of KEY=VALUE words. Raises CliError."""
    found = {}
    for word in words:
        key, mark, value = word.partition("=")
        if not mark or not key:
            raise CliError(f"{flag} {word!r} is not KEY=VALUE", code=USAGE)
        found[key] = value
    return found


def labels(words: Iterable[str]) -> dict[str, str]:
    """Return labels as Docker reads them: one without a value has an empty one."""
    return {key: value for key, _, value in (word.partition("=") for word in words)}
