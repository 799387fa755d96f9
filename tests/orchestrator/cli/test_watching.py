"""`watch`: what a change asks for, who lacks what, when a burst is over; all without a cluster."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from orchestrator.cli import wishes
from orchestrator.cli.commands import restart
from orchestrator.cli.commands import watch as watch_command
from orchestrator.cli.develop import notices, rules
from orchestrator.cli.develop import tree as tree_module
from orchestrator.cli.develop.ledger import Ledger
from orchestrator.cli.develop.notices import Burst, FolderNotices
from orchestrator.cli.develop.tree import WatchedTree
from orchestrator.cli.develop.watching import Watching, pack, text_of
from orchestrator.cli.errors import CliError
from orchestrator.client.errors import ApiNotFound, ApiRefusal, NoController

FILES = {"/p/.dockerignore": "secret\n*.log\n!keep.log\nDockerfile\n"}


def entry(path="/p/src", action="sync", target="/app", **more):
    found = {"path": path, "action": action, **more}
    return found if action in ("rebuild", "restart") else {"target": target, **found}


def model(*entries, **service):
    web = {"build": {"context": "/p", "dockerfile": "Dockerfile"}, **service}
    return {"services": {"web": {**web, "develop": {"watch": list(entries)}}, "db": {}}}


def made(*entries, names=(), builds=True, **service):
    return rules.rules_of(model(*entries, **service), names, read=FILES.get, builds=builds)


SRC = entry(ignore=["vendor/", "*.pyc"])
PY = entry(action="sync+restart", include=["**/*.py"], path="/p")
EXEC = entry(action="sync+exec", exec={"command": ["x"]}, path="/p/conf", target="/etc/")


@pytest.mark.parametrize(
    ("entries", "changed", "files", "rebuild", "restart"),
    [
        ([SRC], "/p/src/a.py", [(0, "a.py")], False, False),
        ([SRC], "/p/src/d/a.pyc", [(0, "d/a.pyc")], False, False),
        ([SRC], "/p/src/a.pyc", None, False, False),
        ([SRC], "/p/src/vendor/x/y", None, False, False),
        ([SRC], "/p/srcs/a", None, False, False),
        ([SRC], "/p/src/.git/index", None, False, False),
        ([SRC], "/p/src/d/.a.swp", None, False, False),
        ([SRC], "/p/src/a~", None, False, False),
        ([SRC], "/p/src/4913", None, False, False),
        ([entry(path="/p")], "/p/secret/key", None, False, False),
        ([entry(path="/p")], "/p/a.log", None, False, False),
        ([entry(path="/p")], "/p/keep.log", [(0, "keep.log")], False, False),
        ([entry(path="/q")], "/q/secret", [(0, "secret")], False, False),
        ([PY], "/p/d/a.py", [(0, "d/a.py")], False, False),
        ([PY], "/p/d/a.txt", None, False, False),
        ([EXEC], "/p/conf", [(0, "")], False, False),
        ([entry(action="rebuild")], "/p/src/a", [], True, False),
        ([entry(action="restart")], "/p/src/a", [], False, True),
        ([entry(path="/p/Dockerfile", action="rebuild")], "/p/Dockerfile", [], True, False),
        ([SRC, PY, entry(action="rebuild")], "/p/src/a.py", [(0, "a.py"), (1, "src/a.py")], True,
         False),
    ],
)  # fmt: skip
def test_what_a_change_asks_for(entries, changed, files, rebuild, restart):
    found = rules.due(made(*entries)[0], [changed])
    if files is None:
        assert found == {}
    else:
        assert found == {"web": rules.Due(set(files), rebuild, restart)}


@pytest.mark.parametrize(
    ("rule_", "inner", "place"),
    [
        (SRC, "d/a.py", ("/app", "d/a.py")),
        (entry(path="/p/nginx.conf", target="/etc/nginx/nginx.conf"), "",
         ("/etc/nginx", "nginx.conf")),
        (entry(path="/p/nginx.conf", target="/etc/nginx/"), "", ("/etc/nginx/", "nginx.conf")),
        (entry(path="/p/a", target="/b"), "", ("/", "b")),
    ],
)  # fmt: skip
def test_where_it_goes(rule_, inner, place):
    assert made(rule_)[0][0].place(inner) == place


@pytest.mark.parametrize(
    ("entries", "more", "says"),
    [
        ([], {}, "no service has anything to watch"),
        ([entry(action="rebuild")], {"build": None}, "no build section"),
        ([entry(action="rebuild")], {"builds": False}, "--no-build"),
        ([entry(action="sync+exec", exec={"command": None})], {}, "no command"),
        ([SRC], {"names": ["db"]}, "none of db has anything to watch"),
    ],
)
def test_what_cannot_be_watched_is_refused(entries, more, says):
    with pytest.raises(CliError, match=says):
        made(*entries, **more)


def test_what_is_bound_is_not_sent():
    mount = {"type": "bind", "source": "/p/src", "target": "/app"}
    found, warnings = made(entry(path="/p/src/d"), entry(path="/p/other"), volumes=[mount])
    assert [rule_.path for rule_ in found] == ["/p/other"]
    assert len(warnings) == 1
    assert "/p/src" in warnings[0]


def test_a_folder_nobody_wants_is_closed_and_one_on_the_way_is_not():
    (one,) = made(SRC)[0]
    closed = {path: one.closes(path) for path in ("/", "/p", "/p/src", "/p/src/vendor", "/p/x")}
    wanted = {"/": False, "/p": False, "/p/src": False, "/p/src/vendor": True, "/p/x": True}
    assert closed == wanted
    assert not made(entry(path="/p"))[0][0].closes("/p/secret"), "something in it is taken back"


class Containers(RuleBasedStateMachine):
    """Files change, containers come and go, sending fails, images are built: all have the same."""

    keys = st.sampled_from([(0, "a"), (0, "b"), (1, "c")])

    def __init__(self):
        super().__init__()
        self.ledger = Ledger()
        self.disk: dict = {}
        self.image: dict = {}
        self.running: dict[str, dict] = {}
        self.came = 0

    @rule(keys=st.lists(keys, max_size=3), text=st.integers())
    def edited(self, keys, text):
        self.disk.update(dict.fromkeys(keys, text))
        if keys:
            self.ledger.note(keys)

    @rule()
    def another_container_comes(self):
        self.came += 1
        self.running[f"c{self.came}"] = dict(self.image)

    @rule(data=st.data())
    def one_goes(self, data):
        if self.running:
            self.running.pop(data.draw(st.sampled_from(sorted(self.running))))
            self.ledger.keep(self.running)

    @rule(data=st.data(), fails=st.booleans())
    def sending(self, data, fails):
        if not self.running:
            return
        name = data.draw(st.sampled_from(sorted(self.running)))
        number, lacks = self.ledger.number, self.ledger.behind(name)
        for key in lacks[:1] if fails else lacks:
            self.running[name][key] = self.disk[key]
        if not fails:
            self.ledger.brought(name, number)

    @rule(meanwhile=st.lists(keys, max_size=2), works=st.booleans())
    def building(self, meanwhile, works):
        begun, context = self.ledger.number, dict(self.disk)
        self.edited_now(meanwhile)
        if works:
            self.image = context
            self.running = {f"{name}'": dict(context) for name in self.running}
            self.ledger.built(begun)
            self.ledger.keep(self.running)

    def edited_now(self, keys):
        for key in keys:
            self.disk[key] = (self.disk.get(key), "later")
        if keys:
            self.ledger.note(keys)

    @invariant()
    def who_lacks_nothing_has_everything(self):
        for name, has in self.running.items():
            lacks = set(self.ledger.behind(name))
            assert {k: v for k, v in self.disk.items() if k not in lacks} == {
                k: v for k, v in has.items() if k not in lacks
            }


def test_who_lacks_nothing_has_everything():
    run_state_machine_as_test(Containers)


@pytest.mark.parametrize(
    ("notices_at", "over_at"),
    [
        ([0.0], 0.25),
        ([0.0, 0.2, 0.4], 0.65),
        ([0.0, 0.1], 0.35),
        ([0.2 * n for n in range(40)], 5.0),
    ],
)
def test_when_a_burst_is_over(notices_at, over_at):
    burst = Burst(notices_at[0])
    for at in notices_at:
        if burst.left(at) > 0:
            burst.more(at)
    assert burst.left(over_at - 0.01) > 0
    assert burst.left(over_at + 0.01) <= 0


def watched(top, *more):
    found = rules.rules_of(
        model(entry(path=str(top), ignore=["out"]), *more, build=None), (), read=lambda _: None
    )[0]
    heard = FolderNotices()
    tree = WatchedTree(found, watched=heard.watch, unwatched=heard.forget)

    def wanted(path, folder):
        return any(r.takes(path) or (folder and not r.closes(path)) for r in found)

    def changes(want):
        """Return what changed, once all of it is seen."""
        seen: set[str] = set()
        until = time.monotonic() + 30
        while not want <= seen and time.monotonic() < until:
            noticed = heard.wait(0.5, wanted)
            if noticed is not None:
                seen |= tree.look(None if noticed.everything else noticed.folders)
                seen |= {path for path in noticed.files if tree.holds(path)}
        return seen

    return heard, tree, changes


def test_the_kernel_tells_of_files_of_new_folders_and_of_moved_ones(tmp_path):
    """Some may be told twice, on a busy machine; none is left out, and nothing of nobody's."""
    top = tmp_path / "src"
    (top / "a").mkdir(parents=True)
    (top / "out").mkdir()
    heard, _, changes = watched(top)
    (top / "a" / "x").write_text("1")
    (top / "n" / "m").mkdir(parents=True)
    (top / "n" / "m" / "y").write_text("1")
    (top / "out" / "z").write_text("1")
    new = {f"{top}/a/x", f"{top}/n", f"{top}/n/m", f"{top}/n/m/y"}
    seen = changes(new)
    (top / "n").rename(top / "k")
    moved = {f"{top}/{name}" for name in ("n", "n/", "n/m", "n/m/", "n/m/y", "k", "k/m", "k/m/y")}
    seen |= changes(moved)
    (top / "k" / "m" / "y").write_text("2")  # its folder has another name by now
    assert f"{top}/k/m/y" in changes({f"{top}/k/m/y"})
    assert seen == new | moved
    while heard.wait(0.5, lambda *_: True):
        pass
    (top / "out" / "z").write_text("2")
    assert heard.wait(0.1, lambda *_: True) is None, "it is not even watched"


@pytest.mark.parametrize("first", ["enter", "leave"])
def test_a_moved_folder_is_heard_whichever_of_its_names_is_seen_first(tmp_path, first):
    """The kernel has one watch for a folder, whatever it is called."""
    heard = FolderNotices()
    (tmp_path / "old").mkdir()
    heard.watch(f"{tmp_path}/old")
    (tmp_path / "old").rename(tmp_path / "new")
    if first == "leave":
        heard.forget(f"{tmp_path}/old")
    heard.watch(f"{tmp_path}/new")
    if first == "enter":
        heard.forget(f"{tmp_path}/old")
    (tmp_path / "new" / "file").write_text("1")
    noticed = heard.wait(30.0, lambda *_: True)
    assert noticed is not None
    assert noticed.folders == {f"{tmp_path}/new"}


@pytest.mark.parametrize("gone", ["", "d", "d/e"])
@pytest.mark.parametrize("again", [True, False], ids=["number again", "other number"])
def test_a_folder_made_again_is_heard_whatever_number_it_gets(tmp_path, monkeypatch, gone, again):
    """Disks give a folder's number to the next one; the kernel's watch went with the first."""
    real = tree_module._look

    def look(path, **how):
        seen = real(path, **how)
        return seen._replace(inode=1) if seen and again and tree_module._folder(seen) else seen

    monkeypatch.setattr(tree_module, "_look", look)
    top = tmp_path / "src"
    inner = top / gone
    (top / "d" / "e").mkdir(parents=True)
    (inner / "old").write_text("1")
    _, _, changes = watched(top)
    shutil.rmtree(inner)
    (top / "d" / "e").mkdir(parents=True)
    (inner / "a").write_text("1")
    assert {f"{inner}/old", f"{inner}/a"} <= changes({f"{inner}/old", f"{inner}/a"})
    for folder in {inner, top / "d", top / "d" / "e"}:
        (folder / "b").write_text("2")
        assert f"{folder}/b" in changes({f"{folder}/b"})
        (folder / "b").write_text("3")
        assert f"{folder}/b" in changes({f"{folder}/b"})


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTCONN])
@pytest.mark.parametrize("shut", ["src", "src/d", "src/d/f", "one"])
def test_what_cannot_be_reached_stays_as_it_was(tmp_path, monkeypatch, error, shut):
    """It is said once; what changed meanwhile, or may not have been sent, is found afterwards."""
    (tmp_path / "src" / "d").mkdir(parents=True)
    files = [tmp_path / "src" / "d" / "f", tmp_path / "one"]
    for file in files:
        file.write_text("1")
    said: list[str] = []
    found = made(
        entry(path=f"{tmp_path}/src"), entry(path=f"{tmp_path}/one", target="/one"), build=None
    )[0]
    tree = WatchedTree(found, unread=lambda path, why: said.append(f"{path}: {why}"))
    before = [tree.below(f"{tmp_path}/{top}") for top in ("src", "one")]

    def refusing(real):
        def asked(path, *args, **how):
            if f"{path}/".startswith(f"{tmp_path}/{shut}/"):
                raise OSError(error, os.strerror(error), path)
            return real(path, *args, **how)

        return asked

    pieces: list[bytes] = []
    with monkeypatch.context() as patched:
        for name in ("stat", "lstat", "listdir"):
            patched.setattr(os, name, refusing(getattr(os, name)))
        assert tree.look(None) == set()
        assert tree.look(()) == set()
        pack({"file": str(files[shut == "one"])}, pieces.append)
    assert not b"".join(pieces).strip(b"\0"), "nothing is removed"
    assert [tree.below(f"{tmp_path}/{top}") for top in ("src", "one")] == before
    assert len(said) == 1
    assert os.strerror(error) in said[0]
    files[shut == "one"].write_text("changed")
    seen = tree.look(())
    assert any(str(path) in seen for path in (files[shut == "one"], files[0].parent))
    assert not tree.shut
    files[shut == "one"].unlink()
    assert str(files[shut == "one"]) in tree.look(None), "what is gone is gone"


def test_a_root_that_becomes_a_link_is_looked_through(tmp_path):
    top = tmp_path / "src"
    top.mkdir()
    (top / "a").write_text("1")
    _, tree, changes = watched(top)
    top.rename(tmp_path / "moved")
    top.symlink_to("moved")
    (top / "b").write_text("1")
    assert changes({f"{top}/b"}) == {f"{top}/b"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b").write_text("1")
    (tmp_path / "new").symlink_to("other")
    (tmp_path / "new").rename(top)
    assert {f"{top}/a", f"{top}/b"} == changes({f"{top}/a", f"{top}/b"})
    (top / "a").write_text("2")
    assert changes({f"{top}/a"}) == {f"{top}/a"}
    assert tree.below(str(top)) == [f"{top}/a", f"{top}/b"]


@pytest.mark.parametrize(
    ("steps", "asks"),
    [
        (["write tmp", "remove tmp"], False),
        (["write tmp", "move tmp"], False),
        (["write tmp"], True),
        (["write old"], True),
        (["remove old"], True),
        (["remove old", "write old"], True),
    ],
)
def test_what_came_and_went_asks_for_nothing(tmp_path, steps, asks):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "old").write_text("1")
    found = made(entry(path=f"{tmp_path}/src", action="rebuild"))[0]
    watching = Watching(SimpleNamespace(), found, built={}, bring_up=lambda _: 0)
    for step in steps:
        what, name = step.split()
        path = tmp_path / "src" / name
        if what == "write":
            path.write_text("2")
        elif what == "remove":
            path.unlink()
        else:
            path.rename(tmp_path / "elsewhere")
    (tmp_path / "src" / "last").write_text("")  # that there is a burst to be seen
    seen: set[str] = set()
    until = time.monotonic() + 30
    while f"{tmp_path}/src/last" not in seen and time.monotonic() < until:
        seen |= watching._changed()
    assert f"{tmp_path}/src/last" in seen
    name = f"{tmp_path}/src/{steps[0].split()[1]}"
    assert bool(rules.due(found, seen & {name})) == asks


class Cluster:
    """What a watch asks of a controller: the stack, and (none of) its containers."""

    def __init__(self, answer):
        self.answer = answer
        self.asked: list[str] = []

    def path(self, *rest):
        return "/".join(["/v1/stacks/app", *rest])

    def stack(self):
        return "app"

    @property
    def client(self):
        return self

    def get(self, path, **_):
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"tasks": []} if path.endswith("tasks") else self.answer


def detail(status="running", replicas=1):
    return {"name": "app", "status": status, "services": [{"name": "web", "replicas": replicas}]}


def test_a_quiet_watch_says_what_it_could_not_do_and_its_builds_say_nothing(
    monkeypatch, capsys, tmp_path
):
    """--quiet is about what builds print, as in Compose; --progress quiet about all that's well."""
    told: list[str] = []

    def up(_, words):
        told.append(wishes.progress())
        return 1

    monkeypatch.setattr(watch_command.ups, "again", up)
    found = made(entry(path=f"{tmp_path}/src", action="rebuild"))[0]
    watching = Watching(
        Cluster(detail()), found, built={}, bring_up=partial(watch_command._quietly, None)
    )
    watching._act(rules.due(found, [f"{tmp_path}/src/a"]))
    assert told == ["quiet"]
    assert "building after a change" in capsys.readouterr().err
    with wishes.quiet():
        watching._act(rules.due(found, [f"{tmp_path}/src/a"]))
    assert capsys.readouterr().err == "watch: web: not rebuilt; what ran before runs on\n"


@pytest.mark.parametrize(("status", "again"), [(409, False), (503, True)])
def test_what_one_target_cannot_have_is_no_reason_to_leave_another_out(
    tmp_path, capsys, status, again
):
    """What may work later is tried again, all of it, and said once."""
    asked: list[str] = []

    def upload(_, fill, *, path, sync):
        assert sync
        fill(lambda _: None)
        asked.append(path)
        if path == "/app":
            raise ApiRefusal({"detail": "no"}, status)
        return {"files": 1}

    found = made(entry(path=f"{tmp_path}/a"), entry(path=f"{tmp_path}/b", target="/other"))[0]
    cluster = SimpleNamespace(client=SimpleNamespace(upload=upload))
    watching = Watching(cluster, found, built={}, bring_up=lambda _: 0)
    row = {"id": "t1", "name": "app-web-1", "started_at": 1.0}
    for _ in range(2):
        assert watching._sent(row, "web", [(0, "f"), (1, "f")]) is not again
    assert asked == ["/app", "/other"] * 2
    said = capsys.readouterr().err
    assert said.count("app-web-1: no") == 1
    assert ("1 change brought in" in said) is not again


NOT_THERE = ApiNotFound({"detail": "there is no stack app"}, 404)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (detail(), ""),
        (detail("degraded"), ""),
        (detail("failed"), ""),
        (NOT_THERE, "web is left alone: app is down until `corral up`"),
        (detail("removing"), "web is left alone: app is down until `corral up`"),
        (detail("stopped"), "web is left alone: app is stopped until"),
        (detail("created"), "web is left alone: app is not started until"),
        (detail(replicas=0), "web is left alone: nothing of it is to run until"),
        (NoController("no controller runs here"), "no controller runs here"),
    ],
)
@pytest.mark.parametrize("action", ["rebuild", "restart"])
def test_what_was_taken_down_is_not_brought_back(
    tmp_path, monkeypatch, capsys, answer, says, action
):
    """`down`, `stop` and `scale web=0` beside a watch; what has to be built is built afterwards."""
    done: list[str] = []
    monkeypatch.setattr(restart, "run", lambda *_: done.append("restart") or 0)
    found = made(entry(path=f"{tmp_path}/src", action=action))[0]
    cluster = Cluster(answer)
    watching = Watching(
        cluster, found, built={}, bring_up=lambda words: done.append(" ".join(words)) or 0
    )
    wishes = rules.due(found, [f"{tmp_path}/src/a"])
    watching._act(wishes)
    watching._act({})
    again = {"rebuild": "--build --no-deps web", "restart": "restart"}[action]
    told = capsys.readouterr().err
    assert done == ([] if says else [again])
    assert told.count(says) == 1 if says else "left alone" not in told
    cluster.answer = detail()
    watching._act({})
    assert done == ([] if says and action == "restart" else [again])


def test_an_ignore_file_that_is_a_folder_is_none(tmp_path):
    (tmp_path / ".dockerignore").mkdir()
    assert text_of(f"{tmp_path}/.dockerignore") is None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is full")
def test_errors_that_nowhere_takes_end_nothing():
    code = (
        "import sys; from orchestrator.cli import main; main._say_without_ears();"
        "[print('x', file=sys.stderr, flush=True) for _ in range(3)]; print('on')"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=full, check=False
        )
    assert (done.returncode, done.stdout) == (0, b"on\n")


def test_a_path_that_is_not_there_yet_and_a_single_file(tmp_path):
    one, later = tmp_path / "one.conf", tmp_path / "later"
    one.write_text("1")
    _, tree, changes = watched(later, entry(path=str(one), target="/etc/one.conf"))
    later.mkdir()
    (later / "f").write_text("1")
    assert f"{later}/f" in changes({f"{later}/f"})
    replaced = tmp_path / ".one.tmp"
    replaced.write_text("2")
    replaced.rename(one)  # as editors save
    assert str(one) in changes({str(one)})
    one.unlink()
    assert str(one) in changes({str(one)})
    assert tree.below(str(later)) == [f"{later}/f"]


def test_where_the_kernel_watches_no_more_all_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(notices, "POLL", 0.05)
    heard, _, changes = watched(tmp_path)
    heard.deaf = "it watches no more"
    (tmp_path / "a").write_text("1")
    assert changes({f"{tmp_path}/a"}) == {f"{tmp_path}/a"}
    os.unlink(tmp_path / "a")
    assert changes({f"{tmp_path}/a"}) == {f"{tmp_path}/a"}
