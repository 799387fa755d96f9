"""Ask registries through skopeo: which digest a name has, and the blobs of an image.

Called by the store. The registry's own words reach the user; what it says decides between
Refusal (no such image, not allowed) and Later (unreachable, overloaded). Only blobs that are
missing are fetched, through agent.images.proxy; the store verifies them. Credentials are
never arguments: skopeo reads the auth file that ``docker login`` writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
from typing import TYPE_CHECKING, Final

from agent.errors import Later, NoRoom, Refusal
from agent.images.manifest import MAX_MANIFEST
from agent.images.proxy import ProxySource, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from pathlib import Path

    from agent.images.reference import Reference

ASK_SECONDS: Final = 30.0
PROXY: Final = "experimental-image-proxy"

_REFUSED: Final = (
    (
        r"manifest unknown|name unknown|repository name not known|not found|status(?:code)?:? 404",
        "not found",
    ),
    (
        r"unauthorized|authentication required|access .* denied|denied:|status(?:code)?:? 40[13]",
        "not allowed",
    ),
    (r"x509|certificate|http response to https client", "the registry's TLS is not trusted"),
    (r"invalid reference format|unsupported manifest|unknown .*media type", "not usable"),
    (r"no image found in .* for architecture|no image found in manifest list", "not found"),
)
_LATER: Final = re.compile(
    r"connection refused|no such host|i/o timeout|timeout|temporary failure|server misbehaving"
    r"|network is unreachable|no route to host|eof|reset by peer|toomanyrequests"
    r"|status(?:code)?:? 429|too many requests|status(?:code)?:? 5\d\d"
    r"|5\d\d (internal|bad|service|gateway)"
    r"|internal server error|bad gateway|service unavailable",
)


def insecure(host: str, environment: Mapping[str, str]) -> bool:
    """Say whether a registry may be spoken to without TLS: loopback, or named by the operator."""
    named = re.split(r"[,\s]+", environment.get("CORRAL_INSECURE_REGISTRIES", ""))
    if host in named:
        return True
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    if name in named or name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def said(stderr: str) -> str:
    """Return the registry's words out of skopeo's log lines."""
    messages = re.findall(r'level=(?:fatal|error) msg="((?:[^"\\]|\\.)*)"', stderr)
    text = messages[-1] if messages else (stderr.strip().splitlines() or ["no message"])[-1]
    text = text.replace('\\"', '"').replace("\\n", " ")
    # skopeo repeats the reference and wraps in its own steps; the tail tells.
    for wrapper in (
        r"^Error parsing image name \"[^\"]*\": ",
        r"^initializing source \S+: ",
        r"^pinging container registry \S+: ",
    ):
        text = re.sub(wrapper, "", text)
    # Without the port of this one try: a fault said before is known by its words.
    text = re.sub(r"\b(read|write) (tcp|udp) \S+->(\S+): ", r"\1 \3: ", text)
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text)[:500]


def failure(what: str, stderr: str) -> Refusal | Later:
    """Turn skopeo's complaint into the exception the runner acts on."""
    words = said(stderr)
    lower = words.lower()
    if _LATER.search(lower) and not re.search(r"manifest unknown|unauthorized", lower):
        return Later(f"cannot reach the registry for {what}: {words}")
    if "no space left" in lower:
        return NoRoom(f"no space left on this node to pull {what}")
    for pattern, meaning in _REFUSED:
        if re.search(pattern, lower):
            return Refusal(f"image {what}: {meaning}: {words}", named=True)
    return Later(f"cannot pull {what}: {words}")


class Registry:
    """skopeo as seen by the store."""

    def __init__(
        self, environment: Mapping[str, str], stage: Callable[[], AbstractContextManager[Path]]
    ) -> None:
        self._environment = environment
        self._stage = stage  # folders for what skopeo puts aside

    def _options(self, reference: Reference, prefix: str = "") -> list[str]:
        options = []
        if insecure(reference.host, self._environment):
            options.append(f"--{prefix}tls-verify=false")
        auth = self._environment.get("CORRAL_AUTH_FILE")
        if auth:
            options.append(f"--authfile={auth}")
        return options

    async def manifest(self, reference: Reference, pinned: str = "") -> bytes:
        """Return the manifest or index a name (or ``pinned`` digest) has now, byte for byte."""
        source = reference.at(pinned) if pinned else str(reference)
        if not pinned and reference.digest:
            source = reference.at(reference.digest)
        command = ["skopeo", "inspect", "--raw", *self._options(reference), f"docker://{source}"]
        try:
            async with asyncio.timeout(ASK_SECONDS):
                code, out, err = await run(command, self._environment)
        except TimeoutError:
            raise Later(
                f"the registry {reference.host} did not answer in {ASK_SECONDS:.0f} s, "
                "or told us to slow down"
            ) from None
        if code:
            raise failure(reference.familiar, err.decode(errors="replace"))
        if len(out) > MAX_MANIFEST:
            raise Refusal(
                f"image {reference.familiar}: its manifest is larger than 4 MiB", named=True
            )
        return out

    def source(self, reference: Reference, digest: str) -> AbstractAsyncContextManager[ProxySource]:
        """Open one platform's image for fetching single blobs."""
        return opened(
            ["skopeo", "--insecure-policy", PROXY, *self._options(reference)],
            f"docker://{reference.at(digest)}",
            self._environment,
            lambda words: failure(reference.familiar, words),
            self._stage,
        )


async def run(
    command: list[str], environment: Mapping[str, str]
) -> tuple[int | None, bytes, bytes]:
    """Run a tool that dies with us, and with the caller's patience."""
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", *command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environment),
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return process.returncode, out, err
