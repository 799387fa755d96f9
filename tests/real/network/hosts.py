"""Hosts made of namespaces for network tests, and sockets inside any of them.

A host is a network and mount namespace in which it is the machine. A switch
joins them. Servers are threads of the test process whose sockets were made
inside a namespace: no container runtime is needed to ask what the network does.
"""

import contextlib
import ctypes
import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from tests.real import warm_agent

ROOT = Path(__file__).resolve().parents[3]
libc = ctypes.CDLL(None, use_errno=True)
AGAIN = 5.0  # seconds; a datagram may be lost, and whoever asks asks again, as libc does


class Refused(Exception):
    """The worker raised; ``kind`` is the exception's name."""

    def __init__(self, answer):
        super().__init__(f"{answer['kind']}: {answer['error']}\n{answer['trace']}")
        self.kind = answer["kind"]
        self.text = answer["error"]


def inside(namespace, work):
    """Run ``work`` in a fresh thread inside a namespace file and return its result."""
    result = []

    def body():
        try:
            with open(namespace) as file:
                _enter(file.fileno())
            result.append((work(), None))
        except BaseException as error:
            result.append((None, error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    value, error = result[0]
    if error:
        raise error
    return value


def _enter(descriptor):
    if libc.setns(descriptor, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def sh(namespace, *command, check=True):
    done = subprocess.run(
        ["nsenter", f"--net={namespace}", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(f"{command}: {done.stderr}")
    return done.stdout


def cpu_of(pid):
    """CPU seconds of a process, to the nanosecond and not to the tick."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((one / "schedstat").read_text().split()[0]) for one in threads) / 1e9


def until(condition, seconds, what):
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


class Server:
    """Answers every TCP connection and UDP datagram with "NAME PEER-ADDRESS"."""

    def __init__(self, namespace, name, port=80, address="0.0.0.0"):
        self.name = name

        def make():
            with contextlib.ExitStack() as undo:
                tcp = undo.enter_context(socket.socket())
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tcp.bind((address, port))
                tcp.listen(64)
                udp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                udp.bind((address, port))
                undo.pop_all()
            return tcp, udp

        self.tcp, self.udp = inside(namespace, make)
        self.seen = 0
        self._stop, self._wake = socket.socketpair()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            ready, _, _ = select.select([self.tcp, self.udp, self._stop], [], [])
            if self._stop in ready:
                break
            if self.tcp in ready:
                link, peer = self.tcp.accept()
                self.seen += 1
                with link, contextlib.suppress(OSError):
                    link.settimeout(2)
                    link.sendall(f"{self.name} {peer[0]}".encode())
            if self.udp in ready:
                _, peer = self.udp.recvfrom(2048)
                self.seen += 1
                with contextlib.suppress(OSError):
                    self.udp.sendto(f"{self.name} {peer[0]}".encode(), peer)
        for link in (self.tcp, self.udp, self._stop):
            link.close()

    def close(self):
        self._wake.close()
        self.thread.join()


def ask(namespace, address, port=80, protocol="tcp", source=None, timeout=30.0):
    """Return the server's answer as (name, peer), or the error's class name."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with inside(namespace, lambda: socket.socket(socket.AF_INET, kind)) as link:
        link.settimeout(timeout)
        try:
            if source:
                link.bind((source, 0))
            link.connect((address, port))
            data = link.recv(200) if protocol == "tcp" else asked(link, timeout)
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return os.strerror(error.errno)
    name, _, peer = data.decode().partition(" ")
    return name, peer


def asked(link, timeout=30.0, to=None):
    """Return the answer to a datagram; one that may have been lost is sent again.

    ``to``: where to, of a socket that is not connected.
    """
    end = time.monotonic() + timeout
    while True:
        left = end - time.monotonic()
        link.settimeout(max(min(AGAIN, left), 0.01))
        if to is None:
            link.send(b"?")
        else:
            link.sendto(b"?", to)
        try:
            return link.recv(200)
        except TimeoutError:
            if left <= AGAIN:
                raise


class Host:
    """A machine: its worker runs NodeNetwork inside it."""

    def __init__(self, lab, name, address, *, worker=True):
        self.lab, self.name, self.address = lab, name, address
        self.dir = lab.dir / name
        (self.dir / "run").mkdir(parents=True)
        (self.dir / "run" / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        self.anchor = subprocess.Popen(
            ["unshare", "-n", "-m", "--propagation", "slave", "sleep", "infinity"]
        )
        self.pid = self.anchor.pid
        self.ns = f"/proc/{self.pid}/ns/net"
        self.attached = set()
        lab.wait_namespace(self.pid)
        lab.plug(self)
        self.worker = None
        if worker:
            self.start()

    def start(self):
        folders = (str(self.dir / "run"), str(self.dir / "state"))
        self.worker = warm_agent.start_worker(self.pid, *folders)
        self.agent_pid = json.loads(self.worker.stdout.readline())["pid"]

    def kill(self):
        """SIGKILL the agent's stand-in."""
        os.kill(self.agent_pid, 9)
        self.worker.wait()
        self.worker.stdin.close()
        self.worker.stdout.close()

    def call(self, op, **arguments):
        self.worker.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
        self.worker.stdin.flush()
        line = self.worker.stdout.readline()
        assert line, "the worker died"
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer)
        return answer

    def netns(self, task):
        return f"/proc/{self.pid}/root{self.dir}/run/agent/netns/{task}"

    def sh(self, *command, check=True):
        return sh(self.ns, *command, check=check)

    def stop(self):
        if self.worker and self.worker.poll() is None:
            with contextlib.suppress(Refused, AssertionError, OSError):
                self.call("leave")
            self.worker.stdin.close()
            self.worker.wait(60)
            self.worker.stdout.close()
        self.anchor.kill()
        self.anchor.wait()


class Lab:
    """A switch and hosts on 10.77.0.0/24."""

    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="corral-net-"))
        self.switch = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        self.wait_namespace(self.switch.pid)
        self.switch_ns = f"/proc/{self.switch.pid}/ns/net"
        sh(self.switch_ns, "ip", "link", "add", "br0", "type", "bridge")
        sh(self.switch_ns, "ip", "link", "set", "br0", "up")
        self.hosts, self.servers = {}, []

    def wait_namespace(self, pid):
        home = os.readlink("/proc/self/ns/net")
        end = time.monotonic() + 60
        while os.readlink(f"/proc/{pid}/ns/net") == home:
            assert time.monotonic() < end
            time.sleep(0.002)
        # unshare does the mount namespace in the same call, the exec of sleep comes after.

    def plug(self, host):
        port = f"p{len(self.hosts)}"
        sh(
            self.switch_ns,
            *("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0"),
            *("netns", str(host.pid)),
        )
        sh(self.switch_ns, "ip", "link", "set", port, "master", "br0", "up")
        for command in (
            "ip link set lo up",
            f"ip addr add {host.address}/24 dev eth0",
            "ip link set eth0 up",
        ):
            host.sh(*command.split())

    def host(self, name, address, **arguments):
        self.hosts[name] = Host(self, name, address, **arguments)
        return self.hosts[name]

    def serve(self, namespace, name, port=80, address="0.0.0.0"):
        self.servers.append(Server(namespace, name, port, address))
        return self.servers[-1]

    def close_servers(self):
        for server in self.servers:
            server.close()
        self.servers.clear()

    def close(self):
        self.close_servers()
        for host in self.hosts.values():
            host.stop()
        self.switch.kill()
        self.switch.wait()
        shutil.rmtree(self.dir)
