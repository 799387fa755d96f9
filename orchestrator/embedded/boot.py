"""After a boot without systemd: one line in /etc/rc.local starts the supervisor again.

The line runs a script of ours in the state folder, closed to others because it holds the
daemons' environment. ``corral controller start`` writes both (orchestrator.embedded.daemons),
``controller stop`` takes both away. A node that `node add` made has a line of its own.

Supervisor and daemons look after each other (specs/kit/alive.py), but not where all of them are
killed at once. Where a cron runs it looks each minute: a supervisor that is there says no.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from specs.kit import programs

if TYPE_CHECKING:
    from collections.abc import Sequence

RC = Path("/etc/rc.local")
CRON = Path("/etc/cron.d/corral")
MARK = "# corral controller"
SHEBANG = "#!/bin/sh"


def with_line(text: str, line: str) -> str:
    """Return rc.local with ``line`` in it, once: before a closing `exit 0`, as some ship it."""
    lines = without(text).splitlines() or [SHEBANG]
    end = next((i for i, found in enumerate(lines) if found.startswith("exit 0")), len(lines))
    return "\n".join([*lines[:end], line, *lines[end:], ""])


def without(text: str) -> str:
    """Return rc.local as it was before us."""
    return "".join(f"{line}\n" for line in text.splitlines() if not line.endswith(MARK))


def script(environment: dict[str, str], command: Sequence[str]) -> str:
    """Return what starts the supervisor with nothing but this environment."""
    settings = [f"{key}={value}" for key, value in sorted(environment.items())]
    return f"{SHEBANG}\nexec env -i {shlex.join([*settings, *command])} </dev/null\n"


def install(start: Path, environment: dict[str, str], command: Sequence[str]) -> str:
    """Have ``command`` run after every boot; return what is in the way, "" when nothing is."""
    run = shlex.quote(str(start))
    # Under "sh -e", as Debian had it, a start that fails must not skip what others wrote.
    line = f"[ -x {run} ] && {run} >/dev/null 2>&1 || true {MARK}"
    try:
        _write(start, script(environment, command), 0o700)
        there = RC.exists()
        text = RC.read_text(encoding="utf-8") if there else ""
        mode = RC.stat().st_mode & 0o7777 if there else 0o755
        _write(RC, with_line(text, line), mode)
        if has_cron():
            _write(CRON, f"* * * * * root {line}\n", 0o644)
    except (OSError, UnicodeDecodeError) as error:
        return f"{RC} cannot be changed ({error})"
    if not mode & 0o100:
        return f"{RC} is not executable (chmod +x {RC})"
    return ""


def has_cron() -> bool:
    """Say whether something looks at ``CRON`` each minute."""
    return CRON.parent.is_dir() and any(map(programs.find, ("cron", "crond")))


def remove(start: Path) -> None:
    """Undo ``install``; a file that holds nothing but what we made it with goes."""
    CRON.unlink(missing_ok=True)
    start.unlink(missing_ok=True)
    try:
        text = RC.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    left = without(text)
    if left == text:
        return
    if left.split() == [SHEBANG]:
        RC.unlink()
    else:
        _write(RC, left, RC.stat().st_mode & 0o7777)


def _write(path: Path, text: str, mode: int) -> None:
    made = path.with_name(f"{path.name}.corral")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
    made.replace(path)
