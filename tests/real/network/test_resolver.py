"""Names as containers see them, over the wire."""

import contextlib
import os
import random
import socket
import statistics
import struct
import threading
import time

import dns.flags
import dns.message
import pytest

from agent.dns import forward
from specs.stack import Port
from tests.real.network.conftest import NODES, processes_of
from tests.real.network.hosts import ask, cpu_of, inside, until
from tests.real.network.questions import lookup, question
from tests.real.network.states import vip

pytestmark = pytest.mark.real

FRONT = vip("net-a", 2)
ENOUGH = 2000  # questions of a flood


class Upstream:
    """A name server on the node's 127.0.0.1: answers with 192.0.2.7, or 60 of them, or never."""

    def __init__(self, namespace):
        def make():
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind(("127.0.0.1", 53))
            tcp = socket.socket()
            # The namespace is shared: connections of the test before may still be in TIME_WAIT.
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind(("127.0.0.1", 53))
            tcp.listen()
            return udp, tcp

        self.udp, self.tcp = inside(namespace, make)
        self.asked = []
        self.silent = False
        for work in (self._udp, self._tcp):
            threading.Thread(target=work, daemon=True).start()

    def answer(self, wire, *, tcp):
        query = dns.message.from_wire(wire)
        name = query.question[0].name
        self.asked.append((str(name), "tcp" if tcp else "udp"))
        reply = dns.message.make_response(query)
        if str(name).startswith("big"):
            if tcp:
                data = [f"192.0.2.{n}" for n in range(60)]
                reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *data))
            else:
                reply.flags |= dns.flags.TC
        else:
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.7"))
        return reply.to_wire()

    def _udp(self):
        with contextlib.suppress(OSError):
            while True:
                wire, peer = self.udp.recvfrom(4096)
                if not wire:
                    return  # shut down
                if self.silent:
                    self.asked.append("silent")
                    continue
                forged = bytearray(self.answer(wire, tcp=False))
                forged[0] ^= 0xFF  # a wrong id first: must be ignored
                self.udp.sendto(bytes(forged), peer)
                self.udp.sendto(self.answer(wire, tcp=False), peer)

    def _tcp(self):
        with contextlib.suppress(OSError):
            while True:
                link, _ = self.tcp.accept()
                with link:
                    head = link.recv(2)
                    wire = link.recv(struct.unpack("!H", head)[0])
                    out = self.answer(wire, tcp=True)
                    # In pieces, as networks do.
                    for part in (
                        struct.pack("!H", len(out))[:1],
                        struct.pack("!H", len(out))[1:],
                        out,
                    ):
                        link.sendall(part)
                        time.sleep(0.01)

    def close(self):
        for link in (self.udp, self.tcp):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()


@pytest.fixture
def shop(single):
    single.task("web1", "n1", ["net-a", "net-b"], number=2, service="web")
    single.task("web2", "n1", ["net-a"], number=3, service="web")
    single.task("db", "n1", ["net-b"], number=4)
    single.task("inner", "n1", ["net-i"], number=5)
    single.service("web", "net-a", ["web1", "web2"], vip=FRONT, aliases=["www"])
    single.service("db", "net-b", ["db"])
    single.push()
    single.upstream = Upstream(single.host.ns)
    yield single
    single.upstream.close()


@pytest.mark.parametrize("tcp", [False, True])
def test_names(shop, tcp):
    def ask(task, name, kind="A"):
        return lookup(shop.netns(task), name, kind, tcp=tcp)

    both = sorted([shop.address("web1"), shop.address("web2")])
    assert ask("web2", "web") == [FRONT]
    assert ask("web2", "WEB") == [FRONT]
    assert ask("web2", "www") == [FRONT]
    assert ask("web2", "shop_web") == [FRONT]
    assert ask("web2", "web.shop_a") == [FRONT]
    assert ask("web2", "tasks.web") == both
    assert ask("web2", "shop-web1") == [shop.address("web1")]
    assert ask("web2", "web", "AAAA") == []
    assert ask("web1", "db") == [shop.address("db")]
    assert ask("web2", "db") == "NXDOMAIN"
    assert ask("db", "web") == "NXDOMAIN"
    assert ask("web2", "2.16.210.10.in-addr.arpa", "PTR") == ["web.shop_a."]
    assert ask("web2", f"{_back(shop.address('web1'))}", "PTR") == ["shop-web1.shop_a."]
    assert ask("web2", f"{_back(shop.address('db'))}", "PTR") == "NXDOMAIN"
    assert shop.upstream.asked == []


def _back(address):
    return ".".join(reversed(address.split("."))) + ".in-addr.arpa"


def test_readiness_reaches_names_and_ttl_is_short(shop):
    shop.ready["web1"] = False
    shop.push()

    answer = question(shop.netns("web2"), "tasks.web")
    assert [str(item) for rrset in answer.answer for item in rrset] == [shop.address("web2")]
    assert all(rrset.ttl <= 5 for rrset in answer.answer)
    assert lookup(shop.netns("web2"), "shop-web1") == [shop.address("web1")]
    shop.ready["web2"] = False
    shop.push()
    assert lookup(shop.netns("web2"), "tasks.web") == []


@pytest.mark.parametrize("tcp", [False, True])
def test_the_rest_goes_upstream(shop, tcp):
    assert lookup(shop.netns("web2"), "example.com", tcp=tcp) == ["192.0.2.7"]
    assert [name for name, _ in shop.upstream.asked] == ["example.com."] * len(shop.upstream.asked)


def test_a_big_answer_comes_by_tcp(shop):
    short = question(shop.netns("web2"), "big.example.com")
    assert short.flags & dns.flags.TC
    assert len(lookup(shop.netns("web2"), "big.example.com", tcp=True)) == 60


def test_internal_networks_get_no_packet_out(shop):
    assert lookup(shop.netns("inner"), "example.com") == "NXDOMAIN"
    assert shop.upstream.asked == []


def test_a_silent_upstream_is_an_error_in_time(shop):
    shop.upstream.silent = True
    assert forward.TOTAL < 5, "which is what a C library waits for"
    assert lookup(shop.netns("web2"), "example.com", timeout=60) == "SERVFAIL"
    assert lookup(shop.netns("web2"), "web") == [FRONT]


def test_many_addresses_are_cut_to_the_size_the_client_takes(single):
    for number in range(1, 41):
        single.task(f"t{number}", "n1", ["net-a"], number=number, service="many")
    single.service("many", "net-a", [f"t{number}" for number in range(1, 41)])
    single.host.call("apply", state=single.state("n1"))
    single.tasks = {"t1": single.tasks["t1"]}
    single.host.call("attach", assignments=[single.tasks["t1"][1].model_dump(mode="json")])
    where = single.netns("t1")

    plain = question(where, "many")
    assert plain.flags & dns.flags.TC
    assert len(plain.to_wire()) <= 512
    assert len(lookup(where, "many", size=1232)) == 40
    assert len(lookup(where, "many", tcp=True)) == 40


def test_nonsense_does_no_harm(shop):
    rng = random.Random(7)
    where = shop.netns("web2")
    with inside(where, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as link:
        for _ in range(300):
            link.sendto(rng.randbytes(rng.randrange(60)), ("127.0.0.11", 53))
    with inside(where, socket.socket) as link:
        link.connect(("127.0.0.11", 53))
        link.sendall(rng.randbytes(100))
    # The socket's queue may be full of it, and a question lost.
    until(lambda: lookup(where, "web") == [FRONT], 60, "it answers")


def test_a_flood_from_one_container_does_not_starve_another(shop):
    """5,000 questions a second for names upstream never answers."""
    shop.upstream.silent = True
    pid = shop.host.call("dns")["pid"]
    stop = threading.Event()
    sent = []

    def flood():
        with inside(
            shop.netns("db"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ) as link:
            link.setblocking(False)
            begun, count = time.monotonic(), 0
            while not stop.is_set() or count <= ENOUGH:
                query = dns_query(f"x{count}.example.com", count & 0xFFFF)
                with contextlib.suppress(OSError):
                    link.sendto(query, ("127.0.0.11", 53))
                count += 1
                ahead = count / 5000 - (time.monotonic() - begun)
                if ahead > 0:
                    time.sleep(ahead)
                elif ahead < -0.02:  # we had no processor: what was not asked then is not owed
                    begun -= ahead
            sent.append(count)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        time.sleep(0.2)
        first = resident(pid)
        took = []
        with inside(
            shop.netns("web2"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ) as link:
            link.settimeout(30)
            link.connect(("127.0.0.11", 53))
            for number in range(300):
                begun = cpu_of(pid)
                link.send(dns_query("web", number))
                link.recv(500)
                took.append(cpu_of(pid) - begun)
                time.sleep(0.003)
        grown = resident(pid) - first
    finally:
        stop.set()
        thread.join()

    # What it did before it came to our question, in CPU seconds: others may be busy, too.
    assert statistics.quantiles(took, n=100)[98] < 0.05
    assert grown < 4 << 20
    assert sent[0] > ENOUGH
    stats = shop.host.call("dns")
    assert stats["in_flight"] <= 100
    assert stats["refused"] > 0


def dns_query(name, ident):
    labels = b"".join(bytes([len(p)]) + p.encode() for p in name.split("."))
    return struct.pack("!6H", ident, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)


def resident(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_the_process_is_small_and_has_no_rights(shop):
    pid = shop.host.call("dns")["pid"]
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.split(":", 1) for line in file)

    assert resident(pid) <= 15 << 20
    assert set(status["Uid"].split()) == {"65534"}
    assert int(status["CapEff"], 16) == 0


def test_a_container_that_serves_names_itself_has_port_53(single):
    """The resolver steps aside, and both answer on 53: each for its own address."""
    port = Port(target=53, published=5353, protocol="udp")
    single.task("dns", "n1", ["net-a"], number=2, ports=(port,))
    single.service("dns", "net-a", ["dns"], vip=FRONT, ports=[port.model_dump()])
    single.push()
    server = single.lab.serve(single.netns("dns"), "dns", port=53)

    for tcp in (False, True):
        assert lookup(single.netns("dns"), "dns", tcp=tcp) == [FRONT]
    assert ask(single.stranger.ns, NODES["n1"], 5353, protocol="udp") == ("dns", "10.77.0.9")
    assert server.seen >= 1
    # Also when resolver and agent died together.
    single.host.kill()
    for pid in processes_of(single.host):
        os.kill(int(pid), 9)
    single.host.start()
    single.host.call("adopt", tasks=["dns"])
    single.host.call("apply", state=single.state("n1"))
    assert lookup(single.netns("dns"), "dns") == [FRONT]


def test_no_process_where_there_is_nobody_to_ask(single):
    single.service("web", "net-a", [], vip=FRONT)
    single.host.call("apply", state=single.state("n1"))

    assert processes_of(single.host) == []
