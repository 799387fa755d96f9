"""Docker and Swarm in a lab host, measured like corral: a daemon of its own, ended by its pid.

Only where dockerd is installed, or its unpacked packages lead PATH; nothing is installed here.
The daemon keeps everything below the host's own directories, so the end of the lab host is the
end of it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specs.kit import programs
from tests.bench import hosts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.lab.host import LabHost

DOCKERD = shutil.which("dockerd") or "/usr/sbin/dockerd"
_PLACE = Path(DOCKERD).parent.parent
DOCKER = str(_PLACE / "bin/docker")  # of the same packages, whatever else is called so
STATE = "/var/lib/corral/docker-bench"  # on the host's disk; its root is in memory
SOCKET = "unix:///run/docker-bench.sock"
ENVIRONMENT = {
    "DOCKER_HOST": SOCKET,
    "DOCKER_CLI_HINTS": "false",
    "PATH": f"{_PLACE}/bin:{_PLACE}/sbin:{programs.SYSTEM_PATH}",
}
AT_ONCE = 8  # `docker run` at the same time: 4 and 50 were not faster
START_LIMIT = 60.0
UP = "seq 1 {n} | xargs -P {p} -I % docker run -d --network bench --name bench-% {image}"
DOWN = "seq 1 {n} | sed s/^/bench-/ | xargs -P {p} -n 1 docker rm -f"
IMAGE = "busybox:latest sleep 1000"
# Until all tasks run; --detach, because the other way waits five seconds more to see them stay.
SERVICE = """\
docker service create --quiet --detach --name bench --network bench-overlay --replicas {n} \
  --restart-condition none --stop-grace-period 0s --no-resolve-image {image} >/dev/null
until [ "$(docker service ls --format '{{{{.Replicas}}}}')" = "{n}/{n}" ]; do sleep 0.05; done
"""
REMOVE = """\
docker service rm bench >/dev/null
while [ -n "$(docker ps -aq)" ]; do sleep 0.05; done
"""


def installed() -> bool:
    """Tell whether there is a dockerd to measure."""
    return shutil.which(DOCKERD) is not None and shutil.which(DOCKER) is not None


@contextmanager
def daemon(host: LabHost) -> Iterator[None]:
    """Run a dockerd of our own in the host."""
    host.run(["mkdir", "-p", STATE])
    words = [
        *(DOCKERD, "--host", SOCKET, "--data-root", f"{STATE}/data", "--exec-root", "/run/dbench"),
        *("--pidfile", "/run/docker-bench.pid", "--log-level", "error", "--userland-proxy=false"),
    ]
    with (host.dir / "dockerd.log").open("wb") as log:
        process = host.popen(
            words, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _until_it_answers(host, process)
        yield
    finally:
        # nsenter, which we started, is not dockerd: the pid file says who is.
        host.run(["sh", "-c", "kill $(cat /run/docker-bench.pid)"], check=False)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)


def _until_it_answers(host: LabHost, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + START_LIMIT
    while host.run([DOCKER, "version"], env=ENVIRONMENT, check=False).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            tail = (host.dir / "dockerd.log").read_text(errors="replace")[-600:]
            raise RuntimeError(f"dockerd does not start: {tail}")
        time.sleep(0.2)


def _shell(host: LabHost, script: str) -> float:
    """Run a script in the host; return its wall seconds."""
    script = script.replace("docker ", f"{DOCKER} ")
    words = [sys.executable, "-I", "-S", hosts.INSIDE, "time", "1", "sh", "-ec", script]
    return hosts.seconds(host.run(words, env=ENVIRONMENT, timeout=300).stdout)


def run(host: LabHost, replicas: int, runs: int, *, swarm_runs: int) -> dict[str, Any]:
    """Measure containers by `docker run` and a Swarm service, up and down."""
    with daemon(host):
        archive = hosts.busybox_archive()
        with archive.open("rb") as file:
            loaded = subprocess.run(
                host.argv([DOCKER, "import", "-", "busybox:latest"], ENVIRONMENT),
                stdin=file, capture_output=True, check=False, timeout=60,
            )  # fmt: skip
        if loaded.returncode:
            raise RuntimeError(f"docker import: {loaded.stderr.decode(errors='replace')}")
        found: dict[str, Any] = {"docker": _containers(host, replicas, runs)}
        found["docker"]["memory"] = found["docker"].pop("memory")
        try:
            found["swarm"] = _swarm(host, replicas, swarm_runs)
        except Exception as error:
            found["swarm"] = {"error": str(error)[-300:]}
    return found


def _containers(host: LabHost, replicas: int, runs: int) -> dict[str, Any]:
    _shell(host, "docker network create bench")
    figures: dict[str, Any] = {"up": [], "down": [], "up_cpu": [], "down_cpu": []}
    for number in range(runs + 1):
        count = replicas if number else 2  # the first is the warming up
        words = {"n": count, "p": AT_ONCE, "image": IMAGE}
        used = hosts.cpu(host)
        up = _shell(host, UP.format(**words))
        middle = hosts.cpu(host)
        figures["memory"] = hosts.memory(host) if number else {}
        again = hosts.cpu(host)
        down = _shell(host, DOWN.format(**words))
        if number:
            figures["up"].append(up)
            figures["up_cpu"].append(middle - used)
            figures["down"].append(down)
            figures["down_cpu"].append(hosts.cpu(host) - again)
    return figures


def _swarm(host: LabHost, replicas: int, runs: int) -> dict[str, Any]:
    _shell(host, f"docker swarm init --advertise-addr {host.address.ipv4} >/dev/null")
    try:
        _shell(host, "docker network create -d overlay bench-overlay")
        figures: dict[str, Any] = {"up": [], "down": [], "up_cpu": [], "down_cpu": []}
        for _ in range(runs):
            with hosts.stopwatch(host, figures, "up"):
                _shell(host, SERVICE.format(n=replicas, image=IMAGE))
            with hosts.stopwatch(host, figures, "down"):
                _shell(host, REMOVE)
        return figures
    finally:
        _shell(host, "docker swarm leave --force >/dev/null")
