"""Mistakes that are valid Compose: what loads, but hardly means what was meant.

:func:`check` runs every rule over a loaded project; :mod:`specs.lint.report` calls it. A
rule is a function that yields warnings; it must take a damaged project too, so it
never relies on a key being there.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from specs.kit import masking
from specs.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from specs.compose.project.model import Project

Json = dict[str, Any]

_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.", re.DOTALL)
_OPERATOR = re.compile(r"&&|\|\||[|;&<>]")
_NUMBER_LIKE = re.compile(
    r"[-+]?[0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?\Z|0[xob][0-9a-fA-F]+\Z"
)
_END = re.compile(r"[\s,}\]]")
# What people give files, in the form they count it out: 0400, 0440 ... 0777.
_USUAL = {0o400, 0o440, 0o444, 0o550, 0o555, 0o600, 0o640, 0o644, 0o660, 0o664, 0o666}
_USUAL |= {0o700, 0o750, 0o755, 0o770, 0o777}
# Folders that hide what a bind brings along; whoever needs what is in them makes it anew.
_MADE_ANEW = re.compile(
    r"/(?:node_modules|vendor|target|dist|build|tmp|cache|\.[a-z_]+|venv|__pycache__)/?\Z"
)
_SMALL = 4 * 1024 * 1024  # below this no container starts


def check(project: Project) -> list[Problem]:
    """Return the warnings of every rule."""
    return [problem for rule in RULES for problem in rule(project)]


def _warning(project: Project, code: str, path: str, message: str, hint: str) -> Problem:
    return Problem(message, code, path, project.origin(path), hint, "warning")


def _services(project: Project) -> Iterator[tuple[str, str, Json]]:
    for name, service in (project.model.get("services") or {}).items():
        if isinstance(service, dict):
            yield name, f"services.{name}", service


def floating_tag(project: Project) -> Iterator[Problem]:
    """Find an image that may be another one tomorrow."""
    for _, path, service in _services(project):
        image = service.get("image")
        if not image or "@" in image or service.get("build"):
            continue
        tag = image.rpartition("/")[2].partition(":")[2]
        if tag in ("", "latest"):
            yield _warning(
                project,
                "floating-tag",
                f"{path}.image",
                f"{image} names no version: what it is changes without a change here",
                f"name one, like {image.removesuffix(':latest')}:1.2",
            )


def quotes_in_value(project: Project) -> Iterator[Problem]:
    """Find `- KEY="value"`: in the list form the quotes belong to the value."""
    for _, path, service in _services(project):
        for key, value in (service.get("environment") or {}).items():
            where = f"{path}.environment.{key}"
            written = _written(project, where)
            if not isinstance(value, str) or "=" not in written:
                continue
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                yield _warning(
                    project,
                    "quotes-in-value",
                    where,
                    f"the quotes are part of the value {masking.value(key, value)}",
                    f"put them around the whole item: - '{key}={masking.value(key, value[1:-1])}'",
                )
            elif value != value.lstrip() or key != key.rstrip():
                yield _warning(
                    project,
                    "blank-in-value",
                    where,
                    "the blank beside = is part of the name or the value",
                    f"write {key.strip()}={masking.value(key, value.strip())}",
                )


def unquoted_number(project: Project) -> Iterator[Problem]:
    """Find `VERSION: 1.10` is the number 1.1."""
    for _, path, service in _services(project):
        for section in ("environment", "labels"):
            for key, value in (service.get(section) or {}).items():
                where = f"{path}.{section}.{key}"
                token = _token(project, where)
                if not isinstance(value, str) or not _NUMBER_LIKE.match(value):
                    continue  # `64 160k` only begins like one
                if _NUMBER_LIKE.match(token) and token != value:
                    shown = masking.value(key, token)
                    yield _warning(
                        project,
                        "unquoted-number",
                        where,
                        f"{shown} is read as the number {masking.value(key, value)}",
                        f'put quotes around it: "{shown}"',
                    )


def decimal_mode(project: Project) -> Iterator[Problem]:
    """Find `mode: 440` is decimal, 0670 in octal."""
    for _, path, service in _services(project):
        for section in ("secrets", "configs"):
            for index, item in enumerate(service.get(section) or ()):
                where = f"{path}.{section}[{index}].mode"
                token = _token(project, where)
                if "mode" in item and _meant_octal(token):
                    yield _warning(
                        project,
                        "decimal-mode",
                        where,
                        f"{token} is a decimal number, in octal {int(token):o}",
                        f'write 0{token} or "0{token}"',
                    )


def _meant_octal(token: str) -> bool:
    """Return whether a number makes sense as permissions in octal, and as it stands does not.

    `440` does; `365` is 0555 for somebody who counted.
    """
    if not re.fullmatch(r"[1-7][0-7]{2}", token) or not _sane(int(token, 8)):
        return False
    return int(token) not in _USUAL


def _sane(mode: int) -> bool:
    """Return whether the owner may read, and nobody more than who is nearer."""
    owner, group, other = mode >> 6, mode >> 3 & 7, mode & 7
    return bool(owner & 4) and group | owner == owner and other | group == group


def shell_operator(project: Project) -> Iterator[Problem]:
    """Find `command: a && b` without a shell: what follows is cut off."""
    for name, path, _ in _services(project):
        body = project.tree.get("services", {}).get(name)
        for key in ("command", "entrypoint"):
            text = body.get(key) if isinstance(body, dict) else None
            if not isinstance(text, str):
                continue
            found = _OPERATOR.search(_QUOTED.sub("", text))
            if found:
                script = key == "command" and _is_script(body.get("entrypoint"))
                yield _warning(
                    project,
                    "no-shell",
                    f"{path}.{key}",
                    f"no shell reads this: {found[0]} and what follows are cut off",
                    "write it as a list of one item" if script else f"write {key}: sh -c '...'",
                )


def words_in_one(project: Project) -> Iterator[Problem]:
    """Find `["npm start"]` and `["CMD", "curl -f x"]`: one program with a blank in its name."""
    for name, path, _ in _services(project):
        body = project.tree.get("services", {}).get(name)
        if not isinstance(body, dict):
            continue
        health = body.get("healthcheck")
        test = health.get("test") if isinstance(health, dict) else None
        keys = ["entrypoint"] if _is_script(body.get("entrypoint")) else ["entrypoint", "command"]
        candidates = [(f"{path}.{key}", body.get(key)) for key in keys]
        if isinstance(test, list) and test[:1] == ["CMD"]:
            candidates.append((f"{path}.healthcheck.test", test[1:]))
        for where, words in candidates:
            if isinstance(words, list) and len(words) == 1 and " " in str(words[0]).strip():
                shell = "CMD-SHELL" if where.endswith("test") else "a string instead of a list"
                yield _warning(
                    project,
                    "one-word",
                    where,
                    f"{words[0]!r} is taken as the name of one program, blanks included",
                    f"use {shell}, or one list item a word",
                )


def _is_script(entrypoint: Any) -> bool:
    """Return whether the command is one text for a program: `entrypoint: ["bash", "-c"]`."""
    words = entrypoint.split() if isinstance(entrypoint, str) else entrypoint
    return (
        isinstance(words, list)
        and len(words) > 1
        and re.fullmatch(r"-[a-zA-Z]*c", str(words[-1])) is not None
    )


def _certain(how: Json, other: Json) -> bool:
    """Say whether `up` will refuse the wait: it is required, and of something that runs."""
    count = (other.get("deploy") or {}).get("replicas", other.get("scale"))
    return how.get("required") is not False and count != 0


def _disabled_wait(
    project: Project, where: str, name: str, target: str, *, certain: bool
) -> Problem:
    return Problem(
        f"{name} waits for {target} to be healthy, but its health check is disabled",
        "no-healthcheck",
        where,
        project.origin(where),
        f"give {target} a healthcheck, or write condition: service_started",
        "error" if certain else "warning",
    )


def impossible_wait(project: Project) -> Iterator[Problem]:
    """Find depends_on conditions that can hardly come true."""
    services: Json = project.model.get("services") or {}
    for name, path, service in _services(project):
        for target, how in (service.get("depends_on") or {}).items():
            other = services.get(target)
            if not isinstance(other, dict) or not isinstance(how, dict):
                continue
            where = f"{path}.depends_on.{target}"
            condition = how.get("condition")
            health = other.get("healthcheck") or {}
            if condition == "service_healthy" and (
                health.get("disable") or health.get("test") == ["NONE"]
            ):
                yield _disabled_wait(project, where, name, target, certain=_certain(how, other))
            elif condition == "service_healthy" and not health:
                yield _warning(
                    project,
                    "no-healthcheck",
                    where,
                    f"{name} waits until {target} is healthy, but has no healthcheck here",
                    f"give {target} a healthcheck here, unless its image has one",
                )
            if condition == "service_completed_successfully" and other.get("restart") in (
                "always",
                "unless-stopped",
            ):
                yield _warning(
                    project,
                    "never-completes",
                    where,
                    f"{name} waits for the end of {target}, which is restarted for ever",
                    f'give {target} restart: "no" or on-failure',
                )


def unused_resource(project: Project) -> Iterator[Problem]:
    """Find something declared that no service uses, active or not."""
    used: dict[str, set[str]] = {
        key: set() for key in ("networks", "volumes", "secrets", "configs")
    }
    services = {**(project.model.get("services") or {}), **project.disabled}
    for service in services.values():
        used["networks"].update(service.get("networks") or {})
        for section in ("secrets", "configs"):
            for holder in (service, service.get("build") or {}):
                used[section].update(i.get("source", "") for i in holder.get(section) or ())
        for mount in service.get("volumes") or ():
            if isinstance(mount, dict):
                used["volumes"].add(mount.get("source") or "")
    for section, names in used.items():
        for key in project.model.get(section) or {}:
            if key not in names and key != "default" and f"{section}.{key}" in project.origins:
                yield _warning(
                    project,
                    "unused",
                    f"{section}.{key}",
                    f"no service uses the {section[:-1]} {key}",
                    "remove it, or name it in a service",
                )


def port_taken(project: Project) -> Iterator[Problem]:
    """Find a port published for all addresses and again for one of them."""
    taken: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for name, path, service in _services(project):
        for index, port in enumerate(service.get("ports") or ()):
            if not isinstance(port, dict) or not str(port.get("published") or "").isdigit():
                continue
            address = port.get("host_ip") or "0.0.0.0"
            key = (str(port["published"]), port.get("protocol") or "tcp")
            where = f"{path}.ports[{index}]"
            for other_name, other_address, other_where in taken.get(key, ()):
                if address != other_address and "0.0.0.0" in (address, other_address):
                    yield _warning(
                        project,
                        "port-clash",
                        where,
                        f"port {key[0]}/{key[1]} is already published by {other_name}"
                        f" ({other_where}) for {other_address}",
                        "publish another port",
                    )
            taken.setdefault(key, []).append((name, address, where))


def tiny_memory(project: Project) -> Iterator[Problem]:
    """Find `mem_limit: 512` is 512 bytes."""
    for _, path, service in _services(project):
        limits = ((service.get("deploy") or {}).get("resources") or {}).get("limits") or {}
        for where, value in (
            (f"{path}.mem_limit", service.get("mem_limit")),
            (f"{path}.deploy.resources.limits.memory", limits.get("memory")),
        ):
            if str(value or "").isdigit() and 0 < int(str(value)) < _SMALL:
                yield _warning(
                    project,
                    "tiny-memory",
                    where,
                    f"{value} bytes are too few for any program",
                    f"did you mean {value}m?",
                )


def volume_without_name(project: Project) -> Iterator[Problem]:
    """Find data that stays behind when a task moves to another node."""
    for _, path, service in _services(project):
        for index, volume in enumerate(service.get("volumes") or ()):
            if not isinstance(volume, dict) or volume.get("type") != "volume":
                continue
            target = str(volume.get("target") or "")
            if volume.get("source") or _MADE_ANEW.search(target):
                continue
            yield _warning(
                project,
                "volume-without-name",
                f"{path}.volumes[{index}]",
                f"the volume at {target} has no name: a task that moves to another node starts "
                "with an empty one",
                "give it a name where its data matters, as in data:/PATH with data: under volumes:",
            )


def _token(project: Project, path: str) -> str:
    """Return the first word of a value as it was written."""
    return _END.split(_written(project, path), maxsplit=1)[0]


def _written(project: Project, path: str) -> str:
    """Return the rest of the line where a value was written, "" when nobody wrote it."""
    position = project.origins.get(path)
    if position is None:
        return ""
    lines = _lines(project.sources.get(position.file, b""))
    if not 0 < position.line <= len(lines):
        return ""
    return lines[position.line - 1][position.column - 1 :].strip()


@lru_cache(maxsize=8)
def _lines(text: bytes) -> list[str]:
    return text.decode("utf-8", "replace").splitlines()


RULES = (
    floating_tag,
    quotes_in_value,
    unquoted_number,
    decimal_mode,
    shell_operator,
    words_in_one,
    impossible_wait,
    unused_resource,
    port_taken,
    tiny_memory,
    volume_without_name,
)
