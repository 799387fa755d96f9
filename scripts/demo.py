"""`make demo`: three hosts on this machine, a stack deployed, scaled, updated, hurt, removed.

The hosts are network namespaces with an sshd each (`corral lab`); all traffic stays inside
them. Every step checks what it shows; the exit code tells. Nothing is left afterwards.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from orchestrator.lab.lab import Lab  # noqa: E402  (after the path is set)

NAME = "demo"
STACK = ROOT / "examples" / "guestbook"
NODES = ("n1", "n2", "n3")
PORT = 8080
WIDE = 6
BASE = "corral/debian-base:12"


class Failed(Exception):
    """A step did not show what it should."""


def say(title: str) -> None:
    print(f"\n\033[1m== {title}\033[0m" if sys.stdout.isatty() else f"\n== {title}", flush=True)


class Demo:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.first = lab.host("n1")
        self.client = lab.host("client")
        self.settings = [f"GUESTBOOK_BASE={BASE}", f"GUESTBOOK_PORT={PORT}"]

    def corral(self, *words: str, show: bool = True, timeout: float = 120) -> str:
        """Run corral on n1 in the stack's folder; show the command and its output."""
        if show:
            print(f"$ corral {' '.join(words)}", flush=True)
        done = self.first.run(
            ["env", *self.settings, str(ROOT / ".venv/bin/corral"), *words],
            cwd=str(STACK),
            timeout=timeout,
            check=False,
        )
        if show:
            print(done.stdout + done.stderr, end="", flush=True)
        if done.returncode != 0:
            raise Failed(f"corral {words[0]} ended with {done.returncode}")
        return str(done.stdout)

    def rows(self, *words: str) -> list[dict[str, Any]]:
        """Return what a listing command prints as JSON, an object a line, by our own keys.

        Those that differ from Docker's by case only are in ``corral``.
        """
        text = self.corral(*words, show=False)
        found = [json.loads(line) for line in text.splitlines() if line.strip()]
        return [{**row, **row.get("corral", {})} for row in found]

    def tasks(self) -> list[dict[str, Any]]:
        return self.rows("ps", "--format", "json")

    def task(self, task: str) -> dict[str, Any]:
        """Return a task's whole record from the controller's API."""
        words = ["curl", "-sS", "--unix-socket", "/run/corral/controller.sock"]
        done = self.first.run([*words, f"http://corral/v1/tasks/{task}"])
        return dict(json.loads(done.stdout))

    def fetch(self, host: str, path: str = "/", data: str = "") -> str:
        """Fetch a page from the client host through one node."""
        words = ["curl", "-sS", "--max-time", "5", "--fail"]
        if data:
            words += ["--data", data]
        address = self.lab.host(host).address.ipv4
        done = self.client.run([*words, f"http://{address}:{PORT}{path}"], timeout=10, check=False)
        if done.returncode != 0:
            raise Failed(f"GET {host}:{PORT}{path}: {done.stderr.strip()}")
        return str(done.stdout)

    def until(self, what: str, limit: float, check: Any) -> float:
        """Wait until ``check()`` is true; return the seconds it took."""
        start = time.monotonic()
        last = ""
        while time.monotonic() - start < limit:
            try:
                if check():
                    return time.monotonic() - start
            except Failed as error:
                last = str(error)
            time.sleep(0.1)
        raise Failed(f"not within {limit:g} s: {what} {last}")

    # The steps

    def images(self) -> None:
        """Put the example's base image, made of Debian packages, where its FROM lines find it."""
        script = str(ROOT / "scripts/base_images.py")
        done = self.first.run([str(ROOT / ".venv/bin/python"), script, "guestbook"], timeout=300)
        print(done.stdout, end="")

    def join(self) -> None:
        say("Two more machines join over SSH")
        key = "/root/.ssh/id_ed25519"
        for name in NODES[1:]:
            host = self.lab.host(name)
            self.corral(
                *("node", "add", f"root@{name}", "--identity", key),
                *("--host-key", host.fingerprint),
            )
        self.corral("node", "ls")

    def up(self) -> None:
        say("The guestbook comes up, in dependency order, on three hosts")
        self.corral("up", "-d", timeout=180)
        self.corral("ps")
        used = {row["node"] for row in self.tasks() if row["service"] == "web"}
        if len(used) != len(NODES):
            raise Failed(f"web runs on {sorted(used)} only")

    def visit(self) -> None:
        say("A client outside fetches the page through each node, and is seen with its own address")
        self.fetch("n1", "/api", data='{"name": "demo", "text": "hello from the demo"}')
        for name in NODES:
            page = json.loads(self.fetch(name, "/api"))
            if page["entries"][0]["text"] != "hello from the demo":
                raise Failed(f"{name} does not show the entry")
            print(f"{name}: answered by {page['task']}, which saw {page['client']}")
        done = self.first.run(["curl", "-sS", "--fail", f"http://127.0.0.1:{PORT}/api"])
        print(f"n1 itself, on 127.0.0.1: answered by {json.loads(done.stdout)['task']}")
        own = self.client.address.ipv4
        logs = self.corral("logs", "--tail", "20", "web", show=False)
        seen = [line for line in logs.splitlines() if own in line]
        if not seen:
            raise Failed(f"web's log does not show the client's address {own}")
        print(seen[-1])

    def scale(self) -> None:
        say("Scale web to 6")
        self.corral("scale", "web=6")
        running = [r for r in self.tasks() if r["service"] == "web" and r["ready"]]
        if len(running) != 6:
            raise Failed(f"{len(running)} of 6 ready")
        self.corral("ps", "web")

    def hurt(self) -> None:
        say("Kill one web process and redis: both come back, with the data")
        before = {row["id"]: row["restarts"] for row in self.tasks()}
        for service in ("web", "redis"):
            row = next(r for r in self.tasks() if r["service"] == service and r["ready"])
            pid = self.task(row["id"])["status"]["runs"][-1]["pid"]
            print(f"{row['node']}# kill -9 {pid}    # {row['name']}")
            self.lab.host(row["node"]).run(["kill", "-9", str(pid)])

        def recovered() -> bool:
            rows = self.tasks()
            restarted = {r["service"] for r in rows if r["restarts"] > before.get(r["id"], 0)}
            return {"web", "redis"} <= restarted and all(
                r["ready"] for r in rows if r["service"] in ("web", "redis")
            )

        took = self.until("web and redis are back", 60, recovered)
        self.until("the entry is still there", 20, lambda: "hello from" in self.fetch("n2", "/api"))
        print(f"back after {took:.1f} s, the entry is still there")

    def update(self) -> None:
        say("Roll out a changed version while the client keeps asking")
        address = self.lab.host("n2").address.ipv4
        script = LOAD.replace("URL", f"http://{address}:{PORT}/api")
        load = self.client.popen(
            [str(ROOT / ".venv/bin/python"), "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.settings.append("GUESTBOOK_VERSION=2")
            self.corral("up", "-d", timeout=180)
        finally:
            result, _ = load.communicate("stop\n", timeout=30)
        total, failed = json.loads(result)
        print(f"{total} requests during the update, {failed} failed")
        if failed or not total:
            raise Failed("requests failed during the update")
        if json.loads(self.fetch("n1", "/api"))["version"] != "2":
            raise Failed("the new version does not answer")

    def power_off(self) -> None:
        rows = self.tasks()
        home = next(row["node"] for row in rows if row["service"] == "redis")
        victim = next(n for n in ("n3", "n2") if n != home)
        say(f"Power {victim} off: its tasks are replaced elsewhere")
        self.lab.host(victim).power_off()
        survivor = next(n for n in NODES if n != victim)

        def replaced() -> bool:
            ready = [r for r in self.tasks() if r["ready"]]
            web = [r for r in ready if r["service"] == "web"]
            proxy = [r for r in ready if r["service"] == "proxy"]
            return len(web) == 6 and len(proxy) == 1 and all(r["node"] != victim for r in ready)

        took = self.until("six ready web tasks and the proxy on two nodes", 40, replaced)
        page = self.fetch(survivor)
        print(f"recovered after {took:.1f} s; {survivor} answers with {len(page)} bytes")
        self.corral("node", "ls")
        say(f"Power {victim} on: it comes back, and what was replaced does not run twice")
        self.lab.host(victim).boot()

        def back() -> bool:
            rows = self.rows("node", "ls", "--format", "json")
            return all(r["status"] == "ready" for r in rows) and len(self.tasks()) == 8

        took = self.until(f"{victim} is ready, with eight tasks in all", 60, back)
        print(f"back after {took:.1f} s")
        self.corral("ps")

    def down(self) -> None:
        say("Down, volumes too")
        self.corral("down", "-v")
        if self.tasks():
            raise Failed("tasks are left")

    def run(self) -> None:
        self.images()
        self.join()
        self.up()
        self.visit()
        self.scale()
        self.hurt()
        self.update()
        self.power_off()
        self.down()


LOAD = """
import http.client, json, select, sys, urllib.parse
url = urllib.parse.urlsplit("URL")
total = failed = 0
connection = None
while not select.select([sys.stdin], [], [], 0.005)[0]:
    total += 1
    for attempt in (1, 2):
        fresh = connection is None
        connection = connection or http.client.HTTPConnection(url.hostname, url.port, timeout=5)
        try:
            connection.request("GET", url.path)
            answer = connection.getresponse()
            answer.read()
            failed += not 200 <= answer.status < 300
            if answer.will_close:
                connection.close()
                connection = None
            break
        except (http.client.HTTPException, OSError):
            connection.close()
            connection = None
            if fresh or attempt == 2:
                failed += 1
                break
print(json.dumps([total, failed]))
"""


def left_behind() -> list[str]:
    """Return what of the lab is still on this machine."""
    found = [
        line
        for line in Path("/proc/mounts").read_text().splitlines()
        if re.search(rf"corral-lab/{NAME}\b", line)
    ]
    if Path(f"/run/corral-lab/{NAME}").exists():
        found.append(f"/run/corral-lab/{NAME}")
    return found


def main() -> int:
    for tool in ("crun", "conmon", "nft", "skopeo", "buildah", "curl"):
        if shutil.which(tool) is None:
            print(f"demo: {tool} is missing; run `make setup`", file=sys.stderr)
            return 2
    began = time.monotonic()
    if (Path("/run/corral-lab") / NAME).exists():
        Lab.open(NAME).down()
    say("A lab of three hosts and a client")
    lab = Lab.up(NAME, len(NODES))
    print(f"up in {time.monotonic() - began:.1f} s")
    code = 0
    try:
        Demo(lab).run()
    except Failed as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        code = 1
    finally:
        say("Lab down")
        lab.down()
    left = left_behind()
    print("\n".join(left) if left else "nothing is left behind")
    print(f"{time.monotonic() - began:.0f} s")
    return code or bool(left)


if __name__ == "__main__":
    sys.exit(main())
