"""Start conmon, the small monitor that stays with each container (pure argv, one effect).

conmon holds the container's output, writes its log in k8s-file form, and leaves the
exit code in a file; it outlives the agent. It forks at once: our child ends, the
monitor goes on, and tells the container's pid (or the runtime's complaint) through
a pipe.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.runtime.crun import scratch
from agent.runtime.exits import identify
from agent.runtime.failure import RuntimeFailure, from_runtime
from agent.runtime.spawner import ended, readable
from specs.kit.failpoints import reached
from specs.kit.room import measure, shortage

if TYPE_CHECKING:
    from pathlib import Path

    from agent.runtime.crun import Runtime
    from agent.vocabulary import Process

CREATE_TIMEOUT = 120.0


@dataclass(frozen=True)
class Request:
    """One container to be created from the bundle in ``directory``."""

    container: str
    directory: Path
    log: Path | None  # None = output is dropped
    log_max: int  # bytes after which conmon begins another file in the log's place
    terminal: bool = False
    stdin: bool = False
    stays: bool = True  # the input stays open when whoever gave it some has gone


def argv(conmon: str, runtime: Runtime, request: Request) -> list[str]:
    """Return conmon's command line."""
    here = request.directory
    words = [
        conmon,
        *("--api-version", "1"),
        *("--cid", request.container, "--cuuid", request.container),
        *("--runtime", runtime.path, "--bundle", str(here)),
        *("--container-pidfile", str(here / "pid"), "--conmon-pidfile", str(here / "conmon.pid")),
        *("--exit-dir", str(here / "exits"), "--persist-dir", str(here)),
        *("--full-attach", "--socket-dir-path", str(here)),
        "--no-sync-log",
        *("--runtime-arg", f"--root={runtime.root}"),
    ]
    if request.log is None:
        words += ["--log-path", "none"]
    else:
        words += ["--log-path", f"k8s-file:{request.log}", "--log-size-max", str(request.log_max)]
    if request.terminal:
        words.append("--terminal")
    if request.stdin:
        words += ["--stdin", *(["--leave-stdin-open"] if request.stays else [])]
    return words


async def create(conmon: str, runtime: Runtime, request: Request) -> tuple[Process, Process]:
    """Create the container; return (container, conmon). Raises RuntimeFailure."""
    reader, writer = os.pipe()
    try:
        try:
            program = await runtime.spawner.spawn(
                argv(conmon, runtime, request),
                pass_fds=(writer,),
                environment={"_OCI_SYNCPIPE": str(writer), **scratch(request.directory)},
            )
            reached("rt.after_conmon_spawn")
        finally:
            os.close(writer)
        try:
            async with asyncio.timeout(CREATE_TIMEOUT):
                await ended(program, None)
                answer = await _answer(reader, request.directory)
        except TimeoutError:
            raise RuntimeFailure(
                f"{runtime.name} create did not answer within {CREATE_TIMEOUT:g} s"
            ) from None
    finally:
        os.close(reader)
    pid = int(answer.get("data", -1))
    if pid <= 0:
        raise from_runtime(str(answer.get("message") or f"{runtime.name} create failed"))
    process = identify(pid)
    monitor = identify(pid_in(request.directory / "conmon.pid"))
    if process is None or monitor is None:
        raise RuntimeFailure("the container or its monitor ended while it was created")
    return process, monitor


async def _answer(reader: int, bundle: Path) -> dict[str, Any]:
    os.set_blocking(reader, False)
    data = b""
    while b"\n" not in data:
        await readable(reader)
        piece = os.read(reader, 65536)
        if not piece:
            break
        data += piece
    try:
        answer = json.loads(data)
    except ValueError:
        room = measure(bundle)
        lack = shortage(room, str(bundle)) if room is not None else ""
        why = f": {os.strerror(errno.ENOSPC)} ({lack})" if lack else ""
        raise RuntimeFailure(
            f"conmon ended without telling what became of the container{why}"
        ) from None
    return answer if isinstance(answer, dict) else {}


def pid_in(path: Path) -> int:
    """Return the number in a pid file, -1 where there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return -1


def reopen_log(directory: Path) -> bool:
    """Make conmon reopen its log by name, after it was renamed; False when it is gone."""
    try:
        ctl = os.open(directory / "ctl", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        os.write(ctl, b"2 0 0\n")
    except OSError:
        return False
    finally:
        os.close(ctl)
    return True
