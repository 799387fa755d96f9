"""The cluster's authority: what it signs, for whom, and that nobody chooses a name."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from orchestrator.keys import ca
from orchestrator.store import keys
from orchestrator.store.memory import MemoryStore
from specs.kit.clock import ManualClock
from tests.orchestrator.control.rig import PlainSealer

NOW = 1_800_000_000.0
PEM = serialization.Encoding.PEM


async def authority(store=None):
    return await ca.load(store or MemoryStore(), PlainSealer(), cluster="c1", clock=ManualClock())


def request(key, *, name="", alternative="", is_ca=False):
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    )
    if alternative:
        names = x509.SubjectAlternativeName([x509.DNSName(alternative)])
        builder = builder.add_extension(names, critical=False)
    if is_ca:
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(PEM).decode()


async def test_the_request_chooses_neither_name_nor_rights():
    root = await authority()
    key = ec.generate_private_key(ec.SECP256R1())
    asked = request(key, name="n-other", alternative="n-other", is_ca=True)

    issued = x509.load_pem_x509_certificate(root.issue(asked, "n-mine", now=NOW).encode())

    common = issued.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [a.value for a in common] == ["n-mine"]
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["n-mine"]
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert issued.public_key() == key.public_key()
    issued.verify_directly_issued_by(x509.load_pem_x509_certificate(root.pem.encode()))
    lifetime = issued.not_valid_after_utc - issued.not_valid_before_utc
    assert lifetime == dt.timedelta(days=ca.NODE_DAYS)
    assert issued.not_valid_before_utc.timestamp() < NOW < issued.not_valid_after_utc.timestamp()


async def test_a_request_not_signed_by_its_own_key_is_refused():
    root = await authority()
    mine, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    asked = x509.load_pem_x509_csr(request(mine).encode()).public_bytes(serialization.Encoding.DER)
    # The other's public key in the place of ours: whoever holds it did not ask.
    point = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    forged = asked.replace(
        mine.public_key().public_bytes(*point), other.public_key().public_bytes(*point)
    )
    assert forged != asked
    pem = x509.load_der_x509_csr(forged).public_bytes(PEM).decode()
    with pytest.raises(ValueError, match="not signed by its own key"):
        root.issue(pem, "n1", now=NOW)


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n"])
async def test_nonsense_is_refused(text):
    with pytest.raises(ValueError):
        (await authority()).issue(text, "n1", now=NOW)


async def test_one_authority_per_cluster_and_its_key_is_sealed():
    store = MemoryStore()
    first, second = await authority(store), await authority(store)
    assert first.pem == second.pem
    key = ec.generate_private_key(ec.SECP256R1())
    issued = x509.load_pem_x509_certificate(second.issue(request(key), "n1", now=NOW).encode())
    issued.verify_directly_issued_by(x509.load_pem_x509_certificate(first.pem.encode()))
    entry = await store.get(keys.AUTHORITY)
    assert entry is not None
    assert b"PRIVATE KEY" not in entry.value, "the key lies in the store unsealed"
