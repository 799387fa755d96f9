"""The node's own key, and how it becomes a certificate of the cluster.

The key is made here and never leaves the node. The hello carries a signing request;
the controller answers with a certificate and its authority in the instructions
(NodeSelf). agent.images.peers uses both to speak to other nodes.

Making key and request needs a library that is large in memory, so it is done once, by
``python -m agent.identity DIRECTORY``, a process that ends.
"""

from __future__ import annotations

import asyncio
import calendar
import os
import re
import ssl
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from specs.kit import disk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from specs.wire import NodeSelf

TIMEOUT = 30.0
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME; the ssl module has no name for it
# A certificate's span of validity (RFC 5280 4.1): two times, each of either kind.
_SPAN = re.compile(rb"0[\x1e-\x22](?:\x17\x0d|\x18\x0f)(\d{12,14}Z)(?:\x17\x0d|\x18\x0f)\d{12,14}Z")


class Identity:
    """Key, request, certificate and authority as files under one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.key = directory / "key.pem"
        self._request = directory / "request.pem"
        self._certificate = directory / "certificate.pem"
        self._authority = directory / "authority.pem"

    async def signing_request(self) -> str:
        """Return the signing request; the first call makes the key."""
        if not self._request.exists():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "agent.identity", str(self._directory)),
                env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            async with asyncio.timeout(TIMEOUT):
                code = await process.wait()
            if code != 0:
                raise OSError(f"the node's key could not be made in {self._directory}")
        return self._request.read_text()

    def accept(self, me: NodeSelf) -> bool:
        """Keep what the controller signed; say whether it is new."""
        if not me.certificate or not me.authority:
            return False
        wanted = {self._certificate: me.certificate, self._authority: me.authority}
        if all(path.exists() and path.read_text() == text for path, text in wanted.items()):
            return False
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, text in wanted.items():
            disk.write_file(path, text.encode(), mode=0o644)
        return True

    @property
    def complete(self) -> bool:
        """Whether there is a certificate to show."""
        return all(p.exists() for p in (self.key, self._certificate, self._authority))

    def context(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        """Return a context that shows our certificate and trusts the cluster's authority only."""
        context = ssl.create_default_context(purpose, cafile=str(self._authority))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        # By this machine's clock, which may be days off; see ``refuses``.
        context.verify_flags |= _NO_CHECK_TIME
        context.load_cert_chain(self._certificate, self.key)
        return context

    def refuses(self, shown: Mapping[str, object]) -> str:
        """Return why a peer's certificate is not good any more, "" = it is.

        ``shown`` is as ``ssl.SSLSocket.getpeercert`` gives it. All dates are by one clock, that of
        the controller that signed: whose ended before ours began has not been seen there for long.
        """
        found = _SPAN.search(ssl.PEM_cert_to_DER_cert(self._certificate.read_text()))
        until = str(shown.get("notAfter", ""))
        if found is None or not until:
            return "a certificate without dates"
        since = calendar.timegm(time.strptime(_full(found[1].decode()), "%Y%m%d%H%M%SZ"))
        if ssl.cert_time_to_seconds(until) < since:
            return f"its certificate was good until {until}"
        return ""


def _full(moment: str) -> str:
    """Return an ASN.1 time with four digits for its year (RFC 5280 4.1.2.5)."""
    if len(moment) == len("YYMMDDhhmmssZ"):
        return ("19" if moment >= "50" else "20") + moment
    return moment


def _make(directory: Path) -> None:
    from cryptography import x509  # noqa: PLC0415 - only this short-lived process pays for it
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - as above

    os.umask(0o077)
    key = ec.generate_private_key(ec.SECP256R1())
    # The controller writes the name; a node cannot choose whom it speaks for.
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    for name, data in (
        ("key.pem", key.private_bytes(pem, *plain)),
        ("request.pem", request.sign(key, hashes.SHA256()).public_bytes(pem)),
    ):
        disk.write_file(directory / name, data)


if __name__ == "__main__":
    _make(Path(sys.argv[1]))
