"""What a changed file means: the rules of ``develop.watch``, and what a batch asks for (pure).

Compose's law. A rule is about what lies below its path; patterns are relative to that path, those
of .dockerignore to the build's context; what editors and git keep for themselves is nobody's.
A path that is itself a file is meant whatever the patterns say.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.cli.errors import CliError
from specs.kit.ignoring import PathPatterns, lines_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

SYNC, RESTART, SYNC_RESTART = "sync", "restart", "sync+restart"
SYNC_EXEC, REBUILD = "sync+exec", "rebuild"

# Editors write these for a moment; Compose has the same list.
PASSING = PathPatterns(
    (
        *("**/.git", "**/.idea", "**/*___jb_old___", "**/*___jb_tmp___", "**/.#*", "**/4913"),
        *("**/*~", "**/.*.swp", "**/.*.swx", "**/.*.swo", "**/.*.swn"),
    )
)


@dataclass(frozen=True, slots=True)
class WatchRule:
    """One entry of a service's ``develop.watch``; ``number`` is its place there."""

    service: str
    number: int
    path: str
    action: str
    target: str = ""
    ignore: PathPatterns = field(default_factory=lambda: PathPatterns(()))
    include: PathPatterns = field(default_factory=lambda: PathPatterns(()))
    context: str = ""
    left_out: PathPatterns = field(default_factory=lambda: PathPatterns(()))  # of the context
    initial: bool = False
    hook: Mapping[str, Any] = field(default_factory=dict)

    @property
    def syncs(self) -> bool:
        """Whether changed files go into containers."""
        return self.action in (SYNC, SYNC_RESTART, SYNC_EXEC)

    def relative(self, path: str) -> str | None:
        """Return the path as seen from the rule's own; None where it lies elsewhere."""
        return _below(path, self.path)

    def takes(self, path: str) -> bool:
        """Say whether a change of this path is the rule's."""
        inner = self.relative(path)
        if not inner:
            return inner is not None
        if self.include and not self.include.matches(inner):
            return False
        if PASSING.matches(inner) or self.ignore.matches(inner):
            return False
        seen = _below(path, self.context) if self.context else None
        return not (seen and self.left_out.matches(seen))

    def closes(self, folder: str) -> bool:
        """Say whether nothing below the folder can be the rule's."""
        inner = self.relative(folder)
        if not inner:
            return inner is None and _below(self.path, folder) is None
        if PASSING.matches(inner) or self.ignore.closes(inner):
            return True
        seen = _below(folder, self.context) if self.context else None
        return bool(seen) and self.left_out.closes(seen or "")

    def place(self, inner: str) -> tuple[str, str]:
        """Return folder and name in the container of what is called so below the path."""
        if inner:
            return self.target, inner
        if self.target.endswith("/"):
            return self.target, os.path.basename(self.path)
        return os.path.dirname(self.target) or "/", os.path.basename(self.target)


@dataclass(slots=True)
class Due:
    """What a batch of changes asks for, of one service."""

    files: set[tuple[int, str]] = field(default_factory=set)  # rule, path below the rule's
    rebuild: bool = False
    restart: bool = False


def due(rules: Iterable[WatchRule], changed: Iterable[str]) -> dict[str, Due]:
    """Return what changed paths ask for, by service; services without a wish are not in it."""
    found: dict[str, Due] = {}
    paths = list(changed)
    for rule in rules:
        taken = [path for path in paths if rule.takes(path)]
        if not taken:
            continue
        wish = found.setdefault(rule.service, Due())
        if rule.syncs:
            wish.files.update((rule.number, rule.relative(path) or "") for path in taken)
        elif rule.action == REBUILD:
            wish.rebuild = True
        else:
            wish.restart = True
    return found


def taken_down(
    stack: str, detail: Mapping[str, Any] | None, names: Iterable[str]
) -> dict[str, str]:
    """Return of which of the services nothing is to run, and why; a watch brings none back.

    ``detail``: the stack as the controller has it (specs.api.StackDetail), None = there is none.
    """
    if detail is None or detail.get("status") == "removing":
        return dict.fromkeys(names, f"{stack} is down until `corral up`")
    if detail.get("status") == "stopped":
        return dict.fromkeys(names, f"{stack} is stopped until `corral start` or `up`")
    if detail.get("status") == "created":
        return dict.fromkeys(names, f"{stack} is not started until `corral start` or `up`")
    none = {row["name"] for row in detail.get("services") or () if not row.get("replicas")}
    why = "nothing of it is to run until `corral up` or `scale` says so"
    return {name: why for name in names if name in none}


def rules_of(
    model: Mapping[str, Any],
    names: Collection[str],
    *,
    read: Callable[[str], str | None],
    builds: bool = True,
) -> tuple[list[WatchRule], list[str]]:
    """Return the rules of these services (none: all), and warnings. Raises CliError.

    ``read`` returns a file's text, None where there is none; ``builds``: rebuilding is allowed.
    """
    rules: list[WatchRule] = []
    warnings: list[str] = []
    for name, service in sorted((model.get("services") or {}).items()):
        if names and name not in names:
            continue
        left_out = _of_context(service.get("build") or {}, read)
        for number, entry in enumerate((service.get("develop") or {}).get("watch") or ()):
            _refuse(name, service, entry, builds=builds)
            rule = _rule(name, number, entry, service, left_out)
            source = _mounted(rule.path, service) if rule.syncs else ""
            if source:
                warnings.append(f"{name}: {rule.path} is there by a bind mount of {source}")
                continue
            rules.append(rule)
    if not rules and not warnings:
        which = f"none of {', '.join(sorted(names))}" if names else "no service"
        raise CliError(f"{which} has anything to watch", hint="develop: {watch: [...]} in the file")
    return rules, warnings


def no_part(services: Mapping[str, Any]) -> PathPatterns:
    """Return what an initial sync leaves out: what images and stacks are made from."""
    names = {"Dockerfile"}
    names |= {
        os.path.basename(str((service.get("build") or {}).get("dockerfile") or "Dockerfile"))
        for service in services.values()
    }
    for stem in ("compose", "docker-compose", "compose.override", "docker-compose.override"):
        names |= {f"{stem}.yaml", f"{stem}.yml"}
    return PathPatterns(f"**/{name}" for name in sorted(names))


def _rule(
    name: str,
    number: int,
    entry: Mapping[str, Any],
    service: Mapping[str, Any],
    left_out: PathPatterns,
) -> WatchRule:
    return WatchRule(
        service=name,
        number=number,
        path=os.path.normpath(entry["path"]),
        action=entry["action"],
        target=str(entry.get("target") or ""),
        ignore=PathPatterns(_list(entry.get("ignore"))),
        include=PathPatterns(_list(entry.get("include"))),
        context=str((service.get("build") or {}).get("context") or ""),
        left_out=left_out,
        initial=bool(entry.get("initial_sync")),
        hook=entry.get("exec") or {},
    )


def _refuse(
    name: str, service: Mapping[str, Any], entry: Mapping[str, Any], *, builds: bool
) -> None:
    action = entry["action"]
    if action == REBUILD and not service.get("build"):
        raise CliError(
            f"{name} cannot be watched with action rebuild: it has no build section",
            hint="add build:, or use sync or restart",
        )
    if action == REBUILD and not builds:
        raise CliError(f"--no-build does not go with the action rebuild of {name}")
    if action == SYNC_EXEC and not (entry.get("exec") or {}).get("command"):
        raise CliError(
            f"{name} cannot be watched with action {SYNC_EXEC}: it has no command",
            hint="exec: {command: [...]}",
        )


def _of_context(build: Mapping[str, Any], read: Callable[[str], str | None]) -> PathPatterns:
    """Return what a build leaves out; an ignore file of the Dockerfile's own comes first."""
    context = str(build.get("context") or "")
    if not context.startswith("/"):
        return PathPatterns(())
    own = f"{context}/{build.get('dockerfile') or 'Dockerfile'}.dockerignore"
    text = read(own)
    if text is None:
        text = read(f"{context}/.dockerignore")
    return PathPatterns(lines_of(text or ""))


def _mounted(path: str, service: Mapping[str, Any]) -> str:
    for mount in service.get("volumes") or ():
        source = str(mount.get("source") or "")
        if mount.get("type") == "bind" and source and _below(path, source) is not None:
            return source
    return ""


def _below(path: str, folder: str) -> str | None:
    if path == folder:
        return ""
    top = f"{folder.rstrip('/')}/"
    return path[len(top) :] or None if path.startswith(top) else None


def _list(value: str | Sequence[str] | None) -> Sequence[str]:
    return [value] if isinstance(value, str) else value or ()
