"""Names for controllers: ``corral context``, as ``docker context``.

Kept in the user's own configuration. Which controller counts: -H, then --context or
CORRAL_CONTEXT, then CORRAL_HOST, then the context in use, then this machine's own.
"""

from __future__ import annotations

import json
import os

from orchestrator.client.errors import BadHost
from orchestrator.client.places import default_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT = "default"


def path() -> str:
    """Return where the contexts are kept."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return f"{base}/corral/contexts.json"


def read() -> dict[str, Any]:
    """Return ``{"current": name, "contexts": {name: {"host", "description"}}}``. Raises BadHost."""
    try:
        with open(path(), encoding="utf-8") as file:
            found = json.load(file)
        contexts = {str(name): dict(value) for name, value in found["contexts"].items()}
        current = str(found.get("current") or DEFAULT)
    except FileNotFoundError:
        return {"current": DEFAULT, "contexts": {}}
    except OSError as exc:
        raise BadHost(f"{path()}: {exc.strerror}") from exc
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadHost(
            f"{path()} makes no sense", hint="repair or remove it; corral context create ..."
        ) from None
    return {"current": current, "contexts": contexts}


def write(found: dict[str, Any]) -> None:
    """Keep the contexts; a command that is killed leaves the old file or the new one."""
    where = path()
    os.makedirs(os.path.dirname(where), mode=0o700, exist_ok=True)
    draft = f"{where}.{os.getpid()}"
    with open(draft, "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1, ensure_ascii=False)
        file.write("\n")
    os.replace(draft, where)


def host_of(name: str) -> str:
    """Return the controller a context means. Raises BadHost."""
    if name == DEFAULT:
        return default_host()
    contexts = read()["contexts"]
    if name not in contexts:
        known = ", ".join((DEFAULT, *sorted(contexts)))
        raise BadHost(f"there is no context {name}", hint=f"contexts: {known}")
    return str(contexts[name].get("host") or default_host())


def chosen(host: str | None = None, context: str | None = None) -> tuple[str, str]:
    """Return the controller that counts, and the name of its context ("" where it has none)."""
    if host:
        return host, ""
    name = context or os.environ.get("CORRAL_CONTEXT")
    if name:
        return host_of(name), name
    given = os.environ.get("CORRAL_HOST")
    if given:
        return given, ""
    name = read()["current"]
    return host_of(name), name
