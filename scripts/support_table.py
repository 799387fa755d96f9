"""Writes docs/compose-support.md from specs.compile.support and the language's schema.

python scripts/support_table.py          write it
python scripts/support_table.py --check  end with 1 when it is stale
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from specs.compile.support import EXTENSIONS, SUPPORT, KeyVerdict, support_of  # noqa: E402
from specs.compose.language.schema import PROJECT  # noqa: E402 - after the path is set

if TYPE_CHECKING:
    from collections.abc import Iterator

    from specs.compose.language.shape import Shape

PAGE = ROOT / "docs" / "compose-support.md"
HEAD = """\
# What corral does with each key of the Compose language

Written by `scripts/support_table.py` from `specs/compile/support.py`; do not edit.

Every valid Compose file loads, as Docker Compose loads it. What then happens to a key:

| word | meaning |
| --- | --- |
| honoured | corral does what the key says |
| resolved while loading | it shapes the project; nothing of it is left at run time |
| no meaning here | named in a warning |
| not honoured yet | named in a warning; running without it is safe |
| refused | the file is not run, because running it without the key would be wrong |

`corral lint` says the same of the keys a file uses. `*` is any name, `[]` any list item.
Keys beginning with `x-` are allowed everywhere and kept.

| key | verdict | where, or why not |
| --- | --- | --- |
"""


# Which part honours what has no note of its own; the longest prefix counts.
WHERE = {
    "services": "the agent: the container's configuration",
    "services.*.networks": "controller and agent: addresses, names, routes",
    "services.*.ports": "the agent's packet rules on every node",
    "services.*.dns": "the container's resolver",
    "services.*.extra_hosts": "the container's /etc/hosts",
    "services.*.volumes": "the agent's volumes and mounts",
    "services.*.secrets": "the agent: a file in memory",
    "services.*.configs": "the agent: a file in the container",
    "services.*.build": "buildah, on the machine where the command runs",
    "services.*.deploy": "the controller",
    "services.*.deploy.resources": "the scheduler (reservations), the cgroup (limits)",
    "services.*.deploy.placement": "the scheduler",
    "services.*.deploy.restart_policy": "the agent, then the controller",
    "services.*.restart": "the agent, then the controller",
    "services.*.depends_on": "the controller's gates",
    "services.*.healthcheck": "the agent's probes",
    "services.*.logging": "the agent's logs",
    "services.*.scale": "the controller",
    "services.*.pull_policy": "the agent, before a task starts",
    "services.*.labels": "the task's labels",
    "services.*.stop_signal": "the agent",
    "services.*.stop_grace_period": "the agent",
    "services.*.mem_limit": "the container's cgroup",
    "services.*.cpus": "the container's cgroup",
    "services.*.pids_limit": "the container's cgroup",
    "networks": "the controller: one pool of addresses each",
    "volumes": "the agent of the volume's home node",
    "secrets": "sealed in the store",
    "configs": "in the store, by content",
}


def where(path: str, verdict: KeyVerdict) -> str:
    """Return which part honours a key."""
    if verdict is not KeyVerdict.HONOURED:
        return ""
    while path not in WHERE and path:
        path = path.removesuffix("[]").rpartition(".")[0] if not path.endswith("[]") else path[:-2]
    return WHERE.get(path, "")


def keys(shape: Shape, path: str = "") -> Iterator[str]:
    """Yield the path of every key of the language, in specs.compile.support's notation."""
    for key, field in (shape.fields or {}).items():
        here = f"{path}.{key}" if path else key
        yield here
        yield from keys(field, here)
    if shape.values is not None and shape.values.fields is not None:
        yield f"{path}.*"
        yield from keys(shape.values, f"{path}.*")
    if shape.items is not None and shape.items.fields is not None:
        yield from keys(shape.items, f"{path}[]")


def unlisted() -> list[str]:
    """Return the keys of the schema that would be called honoured without being listed."""
    return [
        path
        for path in dict.fromkeys(keys(PROJECT))
        if path not in SUPPORT and support_of(path).verdict is KeyVerdict.HONOURED
    ]


def page() -> str:
    rows = []
    for path in dict.fromkeys(keys(PROJECT)):
        if path not in SUPPORT and not path.endswith(".*"):
            continue  # as its ancestor says
        support = support_of(path)
        note = support.note or where(path, support.verdict)
        rows.append(f"| `{path}` | {support.verdict.value} | {note} |")
    rows.append("")
    rows.append("## corral's own settings\n")
    rows.append("| key | what it does |")
    rows.append("| --- | --- |")
    rows.extend(f"| `{path}` | {extension.note} |" for path, extension in EXTENSIONS.items())
    return HEAD + "\n".join(rows) + "\n"


def main() -> int:
    text = page()
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text() != text:
            print(f"{PAGE} is stale: run scripts/support_table.py")
            return 1
        return 0
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
