"""The AppArmor profile of our containers, where the kernel has AppArmor.

``agent/daemon.py`` has it loaded at start; ``bundle.py`` names it in config.json, and the runtime
enters it with the container's first program. It says no to what the other walls cannot see:
sockets of AF_ALG and AF_VSOCK made by ``socketcall``, mounts, and writes to what is the whole
machine's in /proc and /sys should one of the masks be missing. Everything else is allowed: what
a container may do is decided by its capabilities and the system call filter.

Where it cannot be loaded containers run without it, and the node says so.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Final

from specs.kit import confinement, programs

NAME: Final = "corral-default"
LOADING: Final = 20.0  # seconds

# Stands by itself: the includes of distributions differ, and may be missing.
PROFILE: Final = f"""\
profile {NAME} flags=(attach_disconnected,mediate_deleted) {{
  network,
  deny network alg,
  deny network vsock,
  unix,
  capability,
  file,
  umount,
  deny mount,

  # We, the monitor and the runtime end it and look at it; it may do so among its own.
  signal (receive) peer=unconfined,
  signal (receive) peer=crun,
  signal (receive) peer=runc,
  signal (send, receive) peer={NAME},
  ptrace (readby, tracedby) peer=unconfined,
  ptrace (trace, read, tracedby, readby) peer={NAME},

  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /proc/kmem rwklx,
  deny /proc/mem rwklx,
  deny /proc/sys/kernel/core_pattern w,
  deny /proc/sys/kernel/modprobe w,
  deny /proc/sys/fs/binfmt_misc/** w,
  deny /proc/acpi/** rwklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
  deny /sys/kernel/debug/** rwklx,
  deny /sys/module/** w,
  deny /sys/power/** w,
}}
"""


@dataclass(frozen=True)
class Confinement:
    """``profile``: what containers run under, empty = none; ``warning`` says why, for people."""

    profile: str = ""
    warning: str = ""


def judge(*, enabled: bool, parser: bool, failure: str | None = None) -> Confinement:
    """Return what containers run under. ``failure``: what the parser said; None = it loaded it."""
    if not enabled:
        return Confinement(warning=confinement.MISSING)
    if not parser:
        return Confinement(
            warning="AppArmor is on, but nothing here loads profiles: containers run without one;"
            " install Debian's apparmor package and restart the agent"
        )
    if failure is not None:
        return Confinement(
            warning="AppArmor is on, but the profile of containers cannot be loaded, and they run"
            f" without it: {failure or 'no reason given'}"
        )
    return Confinement(profile=NAME)


def provide() -> Confinement:
    """Load the profile where that can be done; blocks while the parser runs."""
    enabled = confinement.has_apparmor()
    parser = programs.find("apparmor_parser") if enabled else None
    failure = _run(parser, "--replace") if parser is not None else None
    return judge(enabled=enabled, parser=parser is not None, failure=failure)


def remove() -> None:
    """Take the profile out of the kernel: the node leaves, no container is left."""
    if confinement.has_apparmor() and (parser := programs.find("apparmor_parser")):
        _run(parser, "--remove")


def _run(parser: str, what: str) -> str | None:
    """Return why it did not work; None = it did."""
    try:
        done = subprocess.run(
            [parser, what, "--skip-cache"], input=PROFILE, capture_output=True, text=True,
            timeout=LOADING, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
