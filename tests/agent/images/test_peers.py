"""Nodes give each other images: who may ask, what is believed, what a lost peer costs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import ssl
import time

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import CertificateSigningRequestBuilder, Name

from agent.errors import Later
from agent.identity import Identity
from agent.images import peers as module
from agent.images.content import ImageFiles, ImageRecord
from agent.images.manifest import Blob
from agent.images.peers import PeerImages
from orchestrator.keys import ca
from orchestrator.store.memory import MemoryStore
from specs.kit.clock import SystemClock
from specs.wire import NodeSelf, Peer
from tests.orchestrator.control.rig import PlainSealer

LAYER = os.urandom(3 << 20)  # more than one chunk
PEM = serialization.Encoding.PEM


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


# Longer than what one read of a socket gives.
MANIFEST = json.dumps({"schemaVersion": 2, "annotations": {"pad": "x" * 200_000}}).encode()


@pytest.fixture(autouse=True)
def port(monkeypatch):
    monkeypatch.setattr(module, "ASK_SECONDS", 60.0)  # nobody here is away
    with socket.socket() as free:
        free.bind(("127.0.0.11", 0))
        number = free.getsockname()[1]
    monkeypatch.setattr(module, "BLOB_PORT", number)
    return number


async def authority(cluster="c1"):
    return await ca.load(MemoryStore(), PlainSealer(), cluster=cluster, clock=SystemClock())


class World:
    """Nodes 127.0.0.11, .12 ... of one cluster, each with its own store."""

    def __init__(self, root, tmp_path):
        self.root = root
        self.path = tmp_path
        self.nodes = {}
        self.open = []

    def identity(self, name, root=None, certified=None, days=0):
        """Make a node's key and have it signed, for ``certified`` when that is another node."""
        directory = self.path / name / "identity"
        directory.mkdir(parents=True)
        key = ec.generate_private_key(ec.SECP256R1())
        plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (directory / "key.pem").write_bytes(key.private_bytes(PEM, *plain))
        asked = CertificateSigningRequestBuilder().subject_name(Name([]))
        request = asked.sign(key, hashes.SHA256()).public_bytes(PEM).decode()
        (directory / "request.pem").write_text(request)
        signer = root or self.root
        issued = signer.issue(request, certified or name, now=time.time() + days * 86400)
        return Identity(directory), issued, signer.pem

    async def node(self, name, *, holds=True, **more):
        number = 11 + len(self.nodes)
        identity, certificate, authority = self.identity(name, **more)
        content = ImageFiles(self.path / name / "images")
        if holds:
            content.put_blob(MANIFEST)
            content.put_blob(LAYER)
            own = digest(MANIFEST)
            content.set_record(ImageRecord(own, own, digest(b"{}"), (digest(LAYER),), (), "", 0))
        images = PeerImages(content, identity)
        self.open.append(images)
        peer = Peer(node=name, name=name, underlay="", overlay=f"127.0.0.{number}")
        me = NodeSelf(
            node=name,
            name=name,
            overlay=peer.overlay,
            certificate=certificate,
            authority=authority,
        )
        self.nodes[name] = (images, me, peer, content)
        return images

    async def meet(self):
        for name, (images, me, _, _) in self.nodes.items():
            await images.meet(me, {n: p for n, (_, _, p, _) in self.nodes.items() if n != name})


@pytest.fixture
async def world(tmp_path):
    world = World(await authority(), tmp_path)
    yield world
    for images in world.open:
        await images.close()


async def got(images, tmp_path):
    """Fetch manifest and layer; return the layer's bytes, None where nobody has the image."""
    found = await images.manifest(digest(MANIFEST))
    if found is None:
        return None
    assert found[0] == MANIFEST
    target = tmp_path / "layer"
    await found[1].get(Blob(digest(LAYER), len(LAYER)), target)
    return target.read_bytes()


async def test_an_image_comes_from_a_peer_whole(world, tmp_path):
    await world.node("n1")
    asking = await world.node("n2", holds=False)
    await world.meet()
    assert await got(asking, tmp_path) == LAYER


async def test_members_say_whether_they_have_a_controller(world):
    n1, n2, n3 = [await world.node(name, holds=False) for name in ("n1", "n2", "n3")]
    await world.meet()
    assert await n1.without_controller(["n2", "n3"]) == frozenset(), "who does not know says no"
    n2.answer_by(lambda: True)
    n3.answer_by(lambda: False)
    assert await n1.without_controller(["n2", "n3", "n9"]) == {"n2"}
    n3.answer_by(lambda: True)
    assert await n1.without_controller(["n2", "n3"]) == {"n2", "n3"}
    await n2.close()
    assert await n1.without_controller(["n2", "n3"]) == {"n3"}


async def test_a_connection_serves_until_the_certificate_changes(world, tmp_path, monkeypatch):
    await world.node("n1")
    asking = await world.node("n2", holds=False)
    await world.meet()
    callers = []
    handle = module.web.StreamResponse.prepare

    async def noted(self, request):
        callers.append(request.transport.get_extra_info("peername"))
        return await handle(self, request)

    monkeypatch.setattr(module.web.StreamResponse, "prepare", noted)
    for _ in range(3):
        assert await got(asking, tmp_path) == LAYER
    assert len(set(callers)) == 1, "a handshake for each request"
    me = world.nodes["n2"][1]
    request = (tmp_path / "n2" / "identity" / "request.pem").read_text()
    renewed = me.model_copy(
        update={"certificate": world.root.issue(request, "n2", now=time.time())}
    )
    assert renewed.certificate != me.certificate
    await asking.meet(renewed, {"n1": world.nodes["n1"][2]})
    assert await got(asking, tmp_path) == LAYER
    assert len(set(callers)) == 2, "the old certificate is shown although there is a new one"


async def test_half_an_image_is_not_offered(world, tmp_path):
    await world.node("n1", holds=False)
    world.nodes["n1"][3].put_blob(MANIFEST)  # its layers are still on the way
    asking = await world.node("n2", holds=False)
    await world.meet()
    assert await got(asking, tmp_path) is None


async def told(port, **options):
    """Ask n1 for its version; return what it answers, nothing where it breaks the line."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.11", port, **options)
    except (ssl.SSLError, ConnectionError):
        return b""
    try:
        # With TLS 1.3 a refusal of the client's certificate arrives with the first answer.
        writer.write(b"GET /v2/ HTTP/1.1\r\nHost: n1\r\n\r\n")
        return await reader.read(100)
    except (ssl.SSLError, ConnectionError):
        return b""
    finally:
        writer.transport.abort()


async def test_a_client_without_certificate_or_of_another_cluster_is_refused(world, port):
    await world.node("n1")
    await world.meet()
    strange, certificate, foreign = world.identity("x", root=await authority("c2"))
    strange.accept(NodeSelf(node="x", name="x", certificate=certificate, authority=foreign))
    nobody = ssl.create_default_context()
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    other = strange.context(ssl.Purpose.SERVER_AUTH)
    other.check_hostname, other.verify_mode = False, ssl.CERT_NONE
    for context in (nobody, other):
        assert await told(port, ssl=context) == b"", "served to a stranger"
    # The same request by a member is answered: what was refused above is the stranger.
    member, certificate, own = world.identity("n9")
    member.accept(NodeSelf(node="n9", name="n9", certificate=certificate, authority=own))
    context = member.context(ssl.Purpose.SERVER_AUTH)
    answer = await told(port, ssl=context, server_hostname="n1")
    assert answer.startswith(b"HTTP/1.1 200")


async def test_plain_http_gets_nothing(world, port):
    await world.node("n1")
    await world.meet()
    assert await told(port) == b""


@pytest.mark.parametrize("how", ["another node's name", "another cluster"])
async def test_a_server_that_is_not_the_peer_is_not_asked(world, tmp_path, how):
    if how == "another cluster":
        await world.node("n1", root=await authority("c2"))
    else:
        await world.node("n1", certified="n7")
    asking = await world.node("n2", holds=False)
    await world.meet()
    assert await got(asking, tmp_path) is None


async def test_wrong_bytes_are_refused_and_another_peer_is_asked(world, tmp_path):
    await world.node("n1")
    content = world.nodes["n1"][3]
    content.blob(digest(LAYER)).write_bytes(b"x" * len(LAYER))
    asking = await world.node("n2", holds=False)
    await world.meet()
    with pytest.raises(Later, match="stopped giving it"):
        await got(asking, tmp_path)
    await world.node("n3")
    await world.meet()
    for _ in range(4):  # whichever is asked first
        assert await got(asking, tmp_path) == LAYER


async def test_a_wrong_manifest_is_none(world, tmp_path):
    await world.node("n1")
    content = world.nodes["n1"][3]
    asking = await world.node("n2", holds=False)
    await world.meet()
    content.read_blob = lambda *_: MANIFEST + b" "
    assert await got(asking, tmp_path) is None


async def test_a_peer_gone_in_the_middle_is_replaced_by_another(world, tmp_path, monkeypatch):
    await world.node("n1")
    await world.node("n3")
    asking = await world.node("n2", holds=False)
    await world.meet()
    served = []
    write = module.web.StreamResponse.write

    async def broken(self, data):
        served.append(self)
        if self is served[0] and len(served) > 1:
            self._req.transport.abort()  # the power goes while the second chunk is on its way
            raise ConnectionResetError
        await write(self, data)

    monkeypatch.setattr(module.web.StreamResponse, "write", broken)
    assert await got(asking, tmp_path) == LAYER
    assert len({id(response) for response in served}) == 2


async def test_a_peer_that_is_silent_does_not_hold_up_the_others(
    world, tmp_path, port, monkeypatch
):
    monkeypatch.setattr(module, "ASK_SECONDS", 120.0)
    await world.node("n1")
    asking = await world.node("n2", holds=False)
    with socket.socket() as silent:  # accepts and says nothing, as a host that lost power
        silent.bind(("127.0.0.13", port))
        silent.listen()
        world.nodes["n3"] = (
            None,
            None,
            Peer(node="n3", name="n3", underlay="", overlay="127.0.0.13"),
            None,
        )
        peers = {n: p for n, (_, _, p, _) in world.nodes.items() if n != "n2"}
        for name in ("n1", "n2"):
            await world.nodes[name][0].meet(world.nodes[name][1], peers)
        begun = time.monotonic()
        assert await got(asking, tmp_path) == LAYER
        assert time.monotonic() - begun < module.ASK_SECONDS / 2


@pytest.mark.parametrize(
    ("change", "looks"),
    [("nothing", 1), ("certificate", 2), ("authority", 2), ("deleted", 2)],
)
async def test_papers_are_looked_at_when_they_may_be_others(tmp_path, monkeypatch, change, looks):
    looked = []
    known = Identity(tmp_path / "identity")
    (tmp_path / "identity").mkdir()
    known.key.write_text("key")
    accept = known.accept
    monkeypatch.setattr(known, "accept", lambda me: looked.append(me) or accept(me))
    images = PeerImages(ImageFiles(tmp_path / "images"), known)
    me = NodeSelf(node="n", name="n", certificate="c", authority="a")
    await images.meet(me, {})
    if change == "deleted":
        (tmp_path / "identity" / known._certificate.name).unlink()
    elif change != "nothing":
        me = me.model_copy(update={change: "another"})
    await images.meet(me, {})
    assert len(looked) == looks
    assert known._certificate.read_text() == me.certificate


@pytest.mark.parametrize(
    ("theirs", "ours", "served"),
    [
        (0, 0, True),
        (-4000, -4000, True),  # signed by a controller whose clock was years behind: both alike
        (4000, 4000, True),  # or ahead: this machine's clock says that neither is valid yet
        (30000, 30000, True),  # beyond 2050, when certificates write their dates otherwise
        (4000, 0, True),  # the peer was signed for anew, we were not yet
        (0, 80, True),
        (0, 100, False),  # not seen there for longer than a certificate is good for
        (0, 30000, False),
    ],
)
async def test_no_clock_but_that_of_who_signed_says_whether_a_certificate_is_good(
    world, tmp_path, theirs, ours, served
):
    """Law: a machine whose clock is days off serves and is served."""
    await world.node("n1", days=ours)
    asking = await world.node("n2", holds=False, days=theirs)
    await world.meet()
    assert await got(asking, tmp_path) == (LAYER if served else None)


async def test_silent_connections_keep_no_peer_out(world, port, tmp_path, monkeypatch):
    """Law: a connection that does not even agree on keys makes room for who asks."""
    monkeypatch.setattr(module, "_MOST_CALLERS", 8)
    await world.node("n1")
    asking = await world.node("n2", holds=False)
    await world.meet()
    silent = [await asyncio.open_connection("127.0.0.11", port) for _ in range(40)]
    try:
        assert await got(asking, tmp_path) == LAYER
    finally:
        for _, writer in silent:
            writer.transport.abort()


async def test_peers_that_take_nothing_keep_no_other_from_an_image(
    world, port, tmp_path, monkeypatch
):
    """Their power was cut in the middle: TCP finds that out a quarter of an hour later."""
    monkeypatch.setattr(module, "STALL_SECONDS", 2.0)
    await world.node("n1")
    asks = await world.node("n2", holds=False)
    await world.meet()
    large = os.urandom(24 << 20)  # more than the kernel keeps for them
    world.nodes["n1"][3].put_blob(large)
    context = asks._identity.context(ssl.Purpose.SERVER_AUTH)
    context.check_hostname = False
    stuck = []
    for _ in range(module._AT_ONCE):
        link = socket.socket()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.setblocking(False)
        await asyncio.get_running_loop().sock_connect(link, ("127.0.0.11", port))
        reader, writer = await asyncio.open_connection(
            sock=link, ssl=context, server_hostname="n1", limit=1024
        )
        writer.write(f"GET /v2/x/blobs/{digest(large)} HTTP/1.1\r\nHost: n1\r\n\r\n".encode())
        await reader.readline()
        stuck.append(writer)
    layer = None
    async with asyncio.timeout(60):
        while layer is None:  # as long as it has no slot it asks again
            with contextlib.suppress(Later):
                layer = await got(asks, tmp_path)
    assert layer == LAYER
    for writer in stuck:
        writer.transport.abort()
