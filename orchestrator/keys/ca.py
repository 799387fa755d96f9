"""The cluster's certificate authority: nodes prove to each other that they are members.

Made at first start; its key lies in the store sealed by the vault, its certificate in the
clear. A node asks with a signing request in its hello and gets a certificate in its
instructions (dispatch/session.py). The controller writes the names: subject and DNS name are the
node's id, whatever the signing request says.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from orchestrator.store import keys
from orchestrator.store.base import Compare, Put

if TYPE_CHECKING:
    from orchestrator.contracts import Sealer
    from orchestrator.store.base import Store
    from specs.kit.clock import Clock

ROOT_DAYS = 20 * 365
NODE_DAYS = 90
BACKDATED = dt.timedelta(hours=1)  # nodes' clocks may be behind
RENEW_AFTER = NODE_DAYS * 86400.0 / 2


class Authority:
    """Signs nodes' requests under one root."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, root: x509.Certificate) -> None:
        self._key = key
        self._root = root
        self.pem = root.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, signing_request: str, node: str, *, now: float) -> str:
        """Return a certificate (PEM) for the node's key. Raises ValueError for a bad request."""
        asked = x509.load_pem_x509_csr(signing_request.encode())
        if not asked.is_signature_valid:
            raise ValueError("the signing request is not signed by its own key")
        begin = dt.datetime.fromtimestamp(now, dt.UTC) - BACKDATED
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(node))
            .issuer_name(self._root.subject)
            .public_key(asked.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + dt.timedelta(days=NODE_DAYS))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(node)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        )
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()


async def load(store: Store, sealer: Sealer, *, cluster: str, clock: Clock) -> Authority:
    """Return the cluster's authority, making it at first start."""
    entry = await store.get(keys.AUTHORITY)
    if entry is None:
        made = _record(sealer, cluster, clock.wall())
        await store.txn((Compare(keys.AUTHORITY, 0),), (Put(keys.AUTHORITY, made),))
        entry = await store.get(keys.AUTHORITY)
    record = json.loads(entry.value) if entry is not None else {}
    key = serialization.load_pem_private_key(
        sealer.open(base64.b64decode(record["key"])), password=None
    )
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the authority's key is of another kind")
    return Authority(key, x509.load_pem_x509_certificate(record["certificate"].encode()))


def _record(sealer: Sealer, cluster: str, now: float) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    begin = dt.datetime.fromtimestamp(now, dt.UTC) - BACKDATED
    name = _name(f"corral cluster {cluster}")
    root = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(days=ROOT_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, *plain)
    return json.dumps(
        {
            "key": base64.b64encode(sealer.seal(private)).decode(),
            "certificate": root.public_bytes(serialization.Encoding.PEM).decode(),
        }
    ).encode()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
