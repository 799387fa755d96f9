"""What each example is for, as a person in front of it would try it; one class per example.

``work`` does the example's job through its published ports, ``update`` changes a version or scales
while requests go on, ``kept`` is what ``down`` and ``up`` must not lose.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
import urllib.parse
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.lab.host import LabHost

PATIENCE = 240.0


@dataclass
class Answer:
    status: int
    text: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        assert self.status < 300, self
        return json.loads(self.text)


@dataclass
class Stage:
    """Where an example runs: a cluster, and who asks its nodes from which host."""

    corral: Any
    asker: LabHost
    addresses: list[str]
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._turn = cycle(self.addresses)

    def ask(self, port: int, path: str = "/", data: Any = None, **headers: str) -> Answer:
        """Ask one node after the other; ``data`` goes as a form, or as JSON where it is none."""
        address = next(self._turn)
        if isinstance(data, dict) and headers.pop("kind", "form") == "form":
            data = urllib.parse.urlencode(data)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        elif data is not None:
            data = json.dumps(data)
        link = http.client.HTTPConnection(address, port, timeout=60)
        with self.asker.network():
            link.connect()
        try:
            link.request("GET" if data is None else "POST", path, data, headers)
            answer = link.getresponse()
            text = answer.read().decode(errors="replace")
            return Answer(answer.status, text, dict(answer.getheaders()))
        finally:
            link.close()

    def served(self, port: int, path: str = "/") -> Answer:
        """Wait until every node answers: `up` ends when tasks are ready, nodes hear it then."""
        for _ in self.addresses:
            self.until(f"{port}{path}", lambda: self._answers(port, path))
        return self.ask(port, path)

    def _answers(self, port: int, path: str) -> bool:
        try:
            return self.ask(port, path).status < 400
        except OSError:
            return False

    def until(self, what: str, check: Callable[[], Any], limit: float = PATIENCE) -> Any:
        deadline = time.monotonic() + limit
        while not (found := check()):
            assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
            time.sleep(0.2)
        return found

    def exec(self, service: str, *words: str) -> str:
        return str(self.corral("exec", "-T", service, *words).stdout)

    @contextmanager
    def asking(self, port: int, path: str = "/") -> Iterator[None]:
        """Keep asking meanwhile: not one request may fail."""
        self.served(port, path)
        stop, bad, good = threading.Event(), [], []

        def ask() -> None:
            while not stop.is_set():
                try:
                    answer = self.ask(port, path)
                    (good if answer.status < 400 else bad).append(answer.status)
                except (OSError, http.client.HTTPException) as error:
                    bad.append(repr(error))
                stop.wait(0.05)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(90)
        assert good
        assert bad == [], f"of {len(good) + len(bad)} requests"

    def up(self, *words: str, **settings: str) -> None:
        self.settings |= settings
        self.corral.env |= self.settings
        self.corral("up", "-d", *words, timeout=850)

    def ready(self, service: str, stack: str) -> int:
        rows = self.corral.get(f"/v1/stacks/{stack}/tasks")["tasks"]
        return sum(row["ready"] for row in rows if row["service"] == service)


class WordPress:
    services = ("web", "db")

    def work(self, stage: Stage) -> None:
        shown = stage.served(8080, "/wp-admin/install.php?language=en_US")
        assert shown.status == 200
        assert "WordPress" in shown.text
        form = {
            "weblog_title": "A corral of sheep",
            "user_name": "shepherd",
            "admin_password": "long-and-of-no-use",
            "admin_password2": "long-and-of-no-use",
            "pw_weak": "1",
            "admin_email": "shepherd@example.org",
        }
        made = stage.ask(8080, "/wp-admin/install.php?step=2", form)
        assert made.status == 200
        assert "Success" in made.text, made.text
        assert "wp_posts" in self._tables(stage)

    def _tables(self, stage: Stage) -> str:
        password = 'MYSQL_PWD=$(cat "$MARIADB_PASSWORD_FILE")'
        return stage.exec(
            "db", "sh", "-c", f"{password} mariadb -uwordpress wordpress -Ne 'SHOW TABLES'"
        )

    def update(self, stage: Stage) -> None:
        with stage.asking(8080, "/wp-login.php"):
            stage.up(UPLOAD_MAX="64M")
        assert stage.exec("web", "printenv", "UPLOAD_MAX") == "64M\n"
        stage.corral("scale", "web=3")
        assert stage.ready("web", "wordpress") == 3

    def kept(self, stage: Stage) -> None:
        stage.served(8080, "/")
        assert "A corral of sheep" in stage.ask(8080, "/").text
        assert "wp_posts" in self._tables(stage)


class Voting:
    services = ("vote", "result", "worker", "redis", "db")

    def work(self, stage: Stage) -> None:
        stage.served(8080)
        stage.served(8081)
        for voter in range(6):
            self._vote(stage, f"v{voter}", "Cats")
        self._vote(stage, "v0", "Dogs")  # a voter's last vote counts
        self._counted(stage, {"Cats": 5, "Dogs": 1})
        assert "<td>Cats<td>5" in stage.ask(8081).text

    def _vote(self, stage: Stage, voter: str, choice: str) -> None:
        answer = stage.ask(8080, "/", {"vote": choice}, Cookie=f"voter={voter}")
        assert f"You voted for {choice}" in answer.text, answer

    def _counted(self, stage: Stage, votes: dict[str, int]) -> None:
        stage.until(f"{votes}", lambda: stage.ask(8081, "/api").json == votes)

    def update(self, stage: Stage) -> None:
        with stage.asking(8080):
            stage.up(CHOICES="Tea,Coffee")
        assert "Tea or Coffee?" in stage.ask(8080).text
        stage.corral("stop", "worker")
        self._vote(stage, "v9", "Tea")
        assert stage.ask(8081, "/api").json == {"Cats": 5, "Dogs": 1}
        stage.corral("start", "worker")
        self._counted(stage, {"Cats": 5, "Dogs": 1, "Tea": 1})
        stage.corral("scale", "vote=4")
        assert stage.ready("vote", "voting") == 4

    def kept(self, stage: Stage) -> None:
        stage.served(8081)
        self._counted(stage, {"Cats": 5, "Dogs": 1, "Tea": 1})


class Flask:
    services = ("proxy", "app", "db")
    visits = 0

    def work(self, stage: Stage) -> None:
        stage.served(8080)
        seen = [stage.ask(8080).json for _ in range(30)]
        counts = [answer["visits"] for answer in seen]
        assert counts == list(range(counts[0], counts[0] + 30)), "MariaDB counts each once"
        assert {answer["task"] for answer in seen} == {f"flask-app-{n}" for n in (1, 2, 3)}
        sql = "SELECT count(*) FROM visits"
        count = stage.exec(
            "db",
            "sh",
            "-c",
            f"MYSQL_PWD=$(cat $MARIADB_PASSWORD_FILE) mariadb -uflask visits -Ne '{sql}'",
        )
        assert int(count) == counts[-1]

    def update(self, stage: Stage) -> None:
        with stage.asking(8080):
            stage.up(APP_VERSION="2")
        assert stage.ask(8080).json["version"] == "2"
        stage.corral("scale", "app=5")
        assert stage.ready("app", "flask") == 5
        self.visits = stage.ask(8080).json["visits"]

    def kept(self, stage: Stage) -> None:
        assert stage.served(8080).json["visits"] > self.visits > 30


class Django:
    services = ("web", "db")

    def work(self, stage: Stage) -> None:
        shown = stage.served(8080, "/admin/login/")
        assert 'name="username"' in shown.text
        style = re.search(r'href="(/static/\S+\.css)"', shown.text)
        assert style is not None
        assert stage.ask(8080, style[1]).status == 200
        applied = stage.exec("web", "python3", "manage.py", "showmigrations", "notes", "auth")
        assert "[X] 0001_initial" in applied
        assert "[ ]" not in applied
        assert stage.ask(8080).json["notes"] == []
        manage = ("python3", "manage.py", "shell", "-c")
        stage.exec(
            "web", *manage, "from notes.models import Note; Note.objects.create(text='stays')"
        )
        assert stage.ask(8080).json["notes"] == ["stays"]
        done = stage.corral("ps", "-a", "--format", "json").stdout
        rows = [json.loads(line) for line in done.splitlines()]
        assert [row["exit_code"] for row in rows if row["Service"] == "migrate"] == [0]

    def update(self, stage: Stage) -> None:
        with stage.asking(8080):
            stage.up(DJANGO_SITE_TITLE="Ideas")
        assert stage.ask(8080).json["title"] == "Ideas"
        stage.corral("scale", "web=3")
        assert stage.ready("web", "django") == 3

    def kept(self, stage: Stage) -> None:
        stage.served(8080)
        assert stage.ask(8080).json["notes"] == ["stays"]


class Jobs:
    services = ("web", "worker", "rabbitmq")

    def work(self, stage: Stage) -> None:
        stage.served(8080)
        results = self._done(
            stage, [{"text": f"job {n} of many", "seconds": 0.1} for n in range(60)]
        )
        assert sorted(result["job"]["text"] for result in results) == sorted(
            f"job {n} of many" for n in range(60)
        )
        assert {result["words"] for result in results} == {4}
        assert {result["worker"] for result in results} == {f"jobs-worker-{n}" for n in (1, 2, 3)}

    def _done(self, stage: Stage, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        assert stage.ask(8080, "/jobs", jobs).json == {"taken": len(jobs)}
        return self._collected(stage, len(jobs))

    def _collected(self, stage: Stage, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []

        def all_of_them() -> bool:
            found.extend(stage.ask(8080, "/done").json)
            return len(found) >= count

        stage.until(f"{count} results", all_of_them)
        assert stage.ask(8080, "/").json == {"done": 0, "jobs": 0}
        assert len(found) == count
        return found

    def update(self, stage: Stage) -> None:
        """Replace the workers while they have their hands full."""
        jobs = [{"text": f"{n}", "seconds": 0.5} for n in range(60)]
        assert stage.ask(8080, "/jobs", jobs).status == 202
        stage.up(WORKER_VERSION="2")
        stage.corral("scale", "worker=5")
        assert stage.ready("worker", "jobs") == 5
        stage.served(8080)
        results = self._collected(stage, 60)
        assert {int(result["job"]["text"]) for result in results} == set(range(60))
        (after,) = self._done(stage, [{"text": "one more"}])
        assert after["version"] == "2"
        stage.corral("stop", "worker")
        assert stage.ask(8080, "/jobs", [{"text": "waits"}] * 5).status == 202

    def kept(self, stage: Stage) -> None:
        stage.served(8080)
        results = self._collected(stage, 5)
        assert {result["job"]["text"] for result in results} == {"waits"}


class Metrics:
    services = ("prometheus", "app", "node")
    seen_at = 0.0

    def work(self, stage: Stage) -> None:
        stage.served(9090, "/-/ready")
        stage.served(8080)
        self._targets(stage, app=3, node=len(stage.addresses), prometheus=1)
        for _ in range(20):
            assert stage.ask(8080).text.startswith("version 1")
        stage.until("20 requests counted", lambda: self._value(stage, "app_requests_total") >= 20)
        names = {row["metric"]["nodename"] for row in self._query(stage, "node_uname_info")}
        assert names == {row["name"] for row in stage.corral.get("/v1/nodes")["nodes"]}

    def _targets(self, stage: Stage, **wanted: int) -> None:
        def up() -> bool:
            rows = stage.ask(9090, "/api/v1/targets?state=active").json["data"]["activeTargets"]
            healths = [(row["labels"]["job"], row["health"]) for row in rows]
            return len(rows) == sum(wanted.values()) and all(
                healths.count((job, "up")) == count for job, count in wanted.items()
            )

        stage.until(f"targets {wanted}", up)

    def _query(self, stage: Stage, query: str, **more: Any) -> list[Any]:
        words = urllib.parse.urlencode({"query": query, **more})
        return stage.ask(9090, f"/api/v1/query?{words}").json["data"]["result"]

    def _value(self, stage: Stage, name: str, **more: Any) -> float:
        rows = self._query(stage, f"sum({name})", **more)
        return float(rows[0]["value"][1]) if rows else 0.0

    def update(self, stage: Stage) -> None:
        with stage.asking(8080):
            stage.up(APP_VERSION="2")
        stage.corral("scale", "app=5")
        assert stage.ready("app", "metrics") == 5
        self._targets(stage, app=5, node=len(stage.addresses), prometheus=1)
        name = 'app_info{version="2"}'
        stage.until("five of version 2", lambda: self._value(stage, name) == 5)
        self.seen_at = time.time()  # hosts of a lab have the machine's clock

    def kept(self, stage: Stage) -> None:
        stage.served(9090, "/-/ready")
        before = self._value(stage, "app_requests_total", time=self.seen_at)
        assert before >= 20, "series of before `down` are there"


EXAMPLES: dict[str, Any] = {
    "django": Django,
    "flask": Flask,
    "jobs": Jobs,
    "metrics": Metrics,
    "voting": Voting,
    "wordpress": WordPress,
}
