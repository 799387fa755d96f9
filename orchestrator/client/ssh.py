"""Reach a controller's socket on another machine through the user's own ssh.

``ssh://[user@]host[:port][/path/of/controller.sock]``. One background ssh a host forwards a socket
of ours to the controller's; it stays a while after the last command, so the next one costs no
login. Keys, agents, jump hosts and known hosts are ssh's own business, with the user's
configuration. Nothing has to be installed or started on the other side but sshd, and no
session is opened there: forwarded channels only, which sshd does not count.

Loaded when an address says ssh; subprocess only when there is no connection yet.
"""

from __future__ import annotations

import os
import socket
import sys
import time

from orchestrator.client.errors import BadHost, Forbidden, NoAnswer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

REMOTE = "/run/corral/controller.sock"
IDLE = 120  # seconds the connection stays after the last command
CONNECT = 10  # seconds until the other machine's sshd must answer
LOGIN = 20.0  # seconds for the whole login where nobody can be asked anything
ASKED = 180.0  # the same where somebody may have to type a passphrase
STANDS = 0.2  # seconds a connection that stands needs to take another
LONGEST = 107  # bytes of a socket's path (unix(7))
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:%")


class SshHost:
    """One address, and the socket here that leads there."""

    def __init__(self, text: str) -> None:
        """Read an address. Raises BadHost."""
        rest = text.removeprefix("ssh://")
        login, slash, path = rest.partition("/")
        user, at, host = login.rpartition("@")
        port = ""
        if host.startswith("["):
            host, _, port = host[1:].partition("]")
            port = port.removeprefix(":")
        elif host.count(":") == 1:
            host, _, port = host.partition(":")
        fault = (
            (not host or host.startswith("-") or not set(host) <= _ALLOWED)
            or (at and (not user or user.startswith("-") or not user.isprintable()))
            or (port and not (port.isdecimal() and 0 < int(port) < 65536))
            or any(char.isspace() for char in rest)
        )
        if fault:
            raise BadHost(
                f"{text!r} is not the address of a controller",
                hint="write ssh://user@host, ssh://user@host:port or a name of ~/.ssh/config",
            )
        self.text = text
        self.host = f"{user}@{host}" if user else host
        self.port = port
        self.remote = f"/{path}" if slash and path else REMOTE

    @property
    def login(self) -> str:
        """Return what a person types to get there."""
        return f"ssh -p {self.port} {self.host}" if self.port else f"ssh {self.host}"

    def files(self) -> tuple[str, str]:
        """Return our socket and ssh's own; the folder is the user's alone. Raises BadHost."""
        import hashlib

        name = hashlib.sha256(self.text.encode()).hexdigest()[:12]
        folder = _folder()
        found = (f"{folder}/{name}.sock", f"{folder}/{name}.ctl")
        if len(found[0]) + 18 > LONGEST:  # ssh adds a suffix while it makes its own
            raise BadHost(f"{folder} is too long a path for a socket", "set XDG_RUNTIME_DIR")
        return found

    def argv(self, local: str, control: str, log: str, *, asks: bool) -> list[str]:
        """Return the command that makes the connection and stays in the background."""
        options = {
            "ExitOnForwardFailure": "yes",
            "StreamLocalBindUnlink": "yes",
            "StreamLocalBindMask": "0177",
            "ConnectTimeout": str(CONNECT),
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": "3",
            "ControlPersist": str(IDLE),
            "BatchMode": "no" if asks else "yes",
            "ForwardAgent": "no",
            "ForwardX11": "no",
        }
        return [
            *("ssh", "-M", "-S", control, "-f", "-N", "-T", "-E", log),
            *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
            *(("-p", self.port) if self.port else ()),
            *("-L", f"{local}:{self.remote}", "--", self.host),
        ]

    def connect(self, timeout: float) -> socket.socket:
        """Return a socket that leads to the controller's. Raises ClientError."""
        local, control = self.files()
        found = _opened(local, timeout)
        if found is not None:
            return found
        import fcntl

        with open(f"{local}.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of several commands one logs in
            found = _opened(local, timeout)
            if found is not None:
                return found
            self._log_in(local, control)
        found = _opened(local, timeout)
        if found is None:
            raise NoAnswer(f"ssh forwards nothing to {self.host}", hint=self.login)
        return found

    def stands(self) -> bool:
        """Say whether a connection is there already: nobody logs in for this question."""
        found = _opened(self.files()[0], STANDS)
        if found is None:
            return False
        found.close()
        return True

    def _log_in(self, local: str, control: str) -> None:
        import subprocess

        for stale in (local, control):
            if os.path.lexists(stale):
                os.unlink(stale)
        log = f"{local}.log"
        with open(log, "w", encoding="utf-8"):
            pass
        asks = sys.stdin.isatty() and sys.stderr.isatty()
        limit = ASKED if asks else LOGIN
        try:
            ssh = subprocess.Popen(
                self.argv(local, control, log, asks=asks),
                stdin=None if asks else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if asks else subprocess.DEVNULL,
                start_new_session=not asks,  # Ctrl-C is for the command, not for the connection
            )
        except FileNotFoundError:
            raise BadHost(
                "there is no ssh on this machine", hint="apt install openssh-client"
            ) from None
        until = time.monotonic() + limit
        while ssh.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        if ssh.poll() is None:
            ssh.kill()
            ssh.wait()
            raise NoAnswer(
                f"the login on {self.host} took more than {limit:.0f} s", hint=f"try {self.login}"
            )
        if ssh.returncode:
            raise self.refused(_last_words(log))

    def refused(self, said: str) -> BadHost | Forbidden | NoAnswer:
        """Return what ssh's last words mean."""
        if "Host key verification failed" in said or "host key is known" in said:
            return Forbidden(
                f"the host key of {self.host} is not known, or not the one that was",
                hint=f"{self.login} shows it, and asks whether it is right",
            )
        if "Permission denied" in said or "Too many authentication" in said:
            return Forbidden(
                f"{self.host} does not let you in: {said}",
                hint=f"{self.login} must work without a question (ssh-agent, ssh-copy-id)",
            )
        return NoAnswer(
            f"cannot reach {self.host}: {said or 'ssh ended without a word'}",
            hint=f"try {self.login}",
        )


def _folder() -> str:
    """Return the folder of the sockets, made for this user alone. Raises BadHost."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if not base or not os.path.isdir(base) or not os.access(base, os.W_OK):
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = f"{base}/corral-ssh"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        seen = os.stat(folder)
    except OSError as exc:
        raise BadHost(f"{folder}: {exc.strerror}") from exc
    if seen.st_uid != os.geteuid() or seen.st_mode & 0o077:
        raise BadHost(f"{folder} is not this user's alone", hint=f"chmod 700 {folder}")
    return folder


def _opened(path: str, timeout: float) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        return None
    return sock


def _last_words(log: str) -> str:
    """Return ssh's reason: the last line that is one."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines: Sequence[str] = file.read().splitlines()
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip() and "Warning:" not in line]
    known = ("Host key verification failed", "Permission denied")
    worst = [line for line in said if any(word in line for word in known)]
    return "".join((worst or said)[-1:]).rstrip(".").removeprefix("ssh: ")
