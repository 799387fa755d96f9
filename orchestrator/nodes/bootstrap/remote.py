"""The machine that is to become a node, reached with the operator's own login.

Used by ``join.py`` while a node is added, never afterwards. Everything is run as root: directly, or
through ``sudo -n``, which must not ask for a password because nobody could type it.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

from orchestrator.errors import Invalid, Unavailable
from orchestrator.transport.ssh import dial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.transport.address import SshAddress

STEP_TIMEOUT = 60.0
DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")


class StepFailed(Exception):
    """A command on the machine did not succeed; ``output`` is what it said.

    ``code``: it ended with that; None = how it ended is not known.
    """

    def __init__(self, message: str, output: str = "", code: int | None = None) -> None:
        self.output = output
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Reply:
    code: int
    out: str
    err: str


class Remote:
    """A login on the machine."""

    def __init__(self, link: asyncssh.SSHClientConnection, *, sudo: bool) -> None:
        self._link = link
        self.sudo = sudo

    async def run(
        self,
        script: str,
        *arguments: str,
        stdin: bytes | Path = b"",
        timeout: float = STEP_TIMEOUT,
    ) -> Reply:
        """Run a shell script as root and return how it ended. Raises StepFailed when it hangs."""
        return await self._run([*self._become_root(), "sh", "-c", script, "sh", *arguments],
                               stdin, timeout)  # fmt: skip

    async def must(
        self,
        what: str,
        script: str,
        *arguments: str,
        stdin: bytes | Path = b"",
        timeout: float = STEP_TIMEOUT,
    ) -> str:
        """Run a shell script as root and return its output. Raises StepFailed naming ``what``."""
        answer = await self.run(script, *arguments, stdin=stdin, timeout=timeout)
        if answer.code != 0:
            said = (answer.err or answer.out).strip()
            last = said.splitlines()[-1] if said else f"exit code {answer.code}"
            raise StepFailed(f"{what}: {last}", said, answer.code)
        return answer.out

    async def as_user(self, script: str, timeout: float = STEP_TIMEOUT) -> Reply:
        """Run a shell script as the user who logged in."""
        return await self._run(["sh", "-c", script], b"", timeout)

    def _become_root(self) -> list[str]:
        return ["sudo", "-n", "--"] if self.sudo else []

    async def _run(self, argv: list[str], stdin: bytes | Path, timeout: float) -> Reply:
        # A file is read as the machine takes it, and never is in memory as a whole.
        source = {"stdin": stdin} if isinstance(stdin, Path) else {"input": stdin}
        try:
            async with asyncio.timeout(timeout):
                process = await self._start(shlex.join(argv), **source)
                done = await process.wait()
        except TimeoutError:
            raise StepFailed(f"the machine took more than {timeout:g} s") from None
        except (asyncssh.Error, OSError) as error:
            raise StepFailed(f"the SSH connection was lost: {error}") from error
        code = done.returncode if done.returncode is not None else -1
        return Reply(code, _text(done.stdout), _text(done.stderr))

    async def _start(
        self, command: str, **source: bytes | Path
    ) -> asyncssh.SSHClientProcess[bytes]:
        """Start a command and give it its input, also when nobody waits for it any more.

        One that is given up between its start and its input would wait for that input and hold the
        machine's lock against what undoes it, until we hang up; and then go on.
        """

        async def start() -> asyncssh.SSHClientProcess[bytes]:
            return await self._link.create_process(command, encoding=None, **source)

        starting = asyncio.create_task(start(), name="ssh-command")
        starting.add_done_callback(lambda one: one.cancelled() or one.exception())
        return await asyncio.shield(starting)


def _text(data: bytes | str | None) -> str:
    return data.decode(errors="replace") if isinstance(data, bytes) else data or ""


@contextlib.asynccontextmanager
async def login(
    address: SshAddress, *, host_key: str, identity: str | None
) -> AsyncIterator[Remote]:
    """Log in with the operator's key and find the way to root. Raises Unavailable, Invalid."""
    keys = operator_keys(identity)
    async with dial(address, host_key=host_key, keys=keys, name=str(address)) as link:
        remote = Remote(link, sudo=False)
        try:
            remote.sudo = await _needs_sudo(remote, address)
        except StepFailed as failed:
            raise Unavailable(f"{address}: {failed}") from failed
        yield remote


async def _needs_sudo(remote: Remote, address: SshAddress) -> bool:
    answer = await remote.as_user(
        "id -u; sudo -n true 2>&1 >/dev/null && echo sudo || { command -v sudo || echo none; }"
    )
    words = answer.out.split()
    if not words:
        raise Unavailable(
            f"{address} lets {address.user} log in but run nothing",
            hint=f"is the login shell of {address.user} a shell? It said: {answer.err.strip()}",
        )
    if words[0] == "0":
        return False
    if words[-1] == "sudo":
        return True
    if words[-1] == "none":
        hint = "log in as root, or install sudo there and allow this user to use it"
    else:
        hint = (
            "on the machine: echo"
            f" '{address.user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/corral-{address.user};"
            " it can be removed once the node is added"
        )
    raise Unavailable(
        f"{address.user} is not root on {address.host} and cannot become root without a password",
        hint=hint,
    )


def operator_keys(identity: str | None) -> list[asyncssh.SSHKey]:
    """Return the private keys to try: the given file, or the controller user's own."""
    if identity is not None:
        return [_read_key(Path(identity))]
    home = Path("~").expanduser() / ".ssh"
    found = []
    for name in DEFAULT_KEYS:
        with contextlib.suppress(Invalid):
            found.append(_read_key(home / name))
    if not found:
        raise Invalid(
            detail=f"no private key to log in with: none of {', '.join(DEFAULT_KEYS)} is usable"
            f" in {home}",
            hint="name one with --identity FILE (a path on the controller's machine)",
        )
    return found


def _read_key(path: Path) -> asyncssh.SSHKey:
    try:
        return asyncssh.read_private_key(path)
    except OSError as error:
        raise Invalid(
            detail=f"the private key {path} cannot be read: {error.strerror}",
            hint="--identity is a path on the controller's machine",
        ) from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        if "passphrase" in str(error).lower() or isinstance(error, asyncssh.KeyEncryptionError):
            raise Invalid(
                detail=f"the private key {path} has a passphrase, which nobody could type here",
                hint="make a key without one for this: ssh-keygen -t ed25519 -N '' -f FILE, and"
                " add FILE.pub to the machine's authorized_keys",
            ) from error
        raise Invalid(detail=f"{path} is not a private key: {error}") from error
