"""`corral backup`, `restore`, `state check|export`: what is asked, sent, written and refused."""

from __future__ import annotations

import errno
import os

import pytest
from fake import FakeController

from orchestrator.backups import contents, envelope, restoring, verifying
from orchestrator.cli.commands import restore
from orchestrator.cli.errors import CliError
from orchestrator.client import client as api
from specs.api import StateCheck, StateFinding

CONTENT = b"corral-backup 1\n" + bytes(range(256)) * 300
NAME = "corral-c1-20261128T030000Z.backup"
SCHEDULED = {
    "cron": "0 3 * * *",
    "to": "/mnt/backups",
    "keep": 7,
    "encrypted": True,
    "next_at": 1795834800.0,
    "last_at": 1795748400.0,
    "warning": "",
    "files": [
        {
            "file": f"/mnt/backups/{NAME}",
            "cluster": "c1",
            "made_at": 1795748400.0,
            "size": 4096,
            "corral": "0.1.0",
            "encrypted": True,
            "scheduled": True,
            "trouble": "",
        }
    ],
}


def answer(content=CONTENT, length=None):
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
        f'Content-Disposition: attachment; filename="{NAME}"\r\n'
        f"Content-Length: {len(content) if length is None else length}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content


@pytest.fixture
def words(monkeypatch):
    monkeypatch.setenv("CORRAL_BACKUP_PASSPHRASE", "tree of words")


@pytest.mark.parametrize(
    ("to", "lands"), [(None, NAME), ("there", f"there/{NAME}"), ("own.backup", "own.backup")]
)
def test_a_backup_is_written_whole_and_closed(fake, corral, clean_environment, words, to, lands):
    (clean_environment.work / "there").mkdir()
    fake.on("POST", "/v1/backups", answer())
    done = corral("backup", *(("--to", to) if to else ()))
    assert done.code == 0, done.err
    path = clean_environment.work / lands
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    (request,) = fake.asked("POST", "/v1/backups")
    assert request.body == {"passphrase": "tree of words", "plain": False}
    assert "encrypted" in done.out
    left = {path.name for path in clean_environment.work.iterdir()} - {"there", lands}
    assert not left


def test_a_plain_one_says_what_it_is(fake, corral):
    fake.on("POST", "/v1/backups", answer())
    done = corral("backup", "--plain")
    assert (done.code, "who has it has the cluster" in done.out) == (0, True)


@pytest.mark.parametrize("content", [CONTENT[:100], b""])
def test_an_answer_that_is_cut_leaves_nothing(fake, corral, clean_environment, words, content):
    fake.on("POST", "/v1/backups", answer(content, len(CONTENT)))
    old = clean_environment.work / "own.backup"
    old.write_bytes(b"the one of yesterday")
    assert corral("backup", "--to", "own.backup").code == 1
    assert [path.name for path in clean_environment.work.iterdir()] == ["own.backup"]
    assert old.read_bytes() == b"the one of yesterday"


def test_a_full_disk_leaves_nothing_and_says_so(
    fake, corral, clean_environment, words, monkeypatch
):
    fake.on("POST", "/v1/backups", answer())

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    done = corral("backup")
    assert done.code == 1
    assert "no space is left on the disk" in done.err
    assert list(clean_environment.work.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "env", "said"),
    [
        ((), None, "nobody is there to type the passphrase"),
        ((), "", "the passphrase is empty"),
        ((), "  ", "the passphrase is empty"),
        (("--passphrase-file", "empty"), None, "the passphrase is empty (empty)"),
        (("--passphrase-file", "none"), None, "none: No such file"),
        (("--keep", "3"), "x", "--keep belongs to --schedule"),
        (("--schedule", "@daily"), "x", "a schedule needs a folder"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_asked(
    fake, corral, clean_environment, monkeypatch, line, env, said
):
    (clean_environment.work / "empty").write_text("\nsecond line")
    if env is not None:
        monkeypatch.setenv("CORRAL_BACKUP_PASSPHRASE", env)
    done = corral("backup", *line)
    assert done.code in (1, 2)
    assert said in done.err
    assert not fake.requests


def test_a_file_that_is_no_text_is_no_passphrase(fake, corral, clean_environment):
    (clean_environment.work / "random").write_bytes(b"\xff\xfe\x00key")
    done = corral("backup", "--passphrase-file", "random")
    assert done.code == 2
    assert "the passphrase in random is no text" in done.err
    assert fake.asked("POST", "/v1/backups") == []


def test_the_first_line_of_a_file_is_the_passphrase(fake, corral, clean_environment, words):
    fake.on("POST", "/v1/backups", answer())
    (clean_environment.work / "words").write_text("of a file \nmore\n")
    assert corral("backup", "--passphrase-file", "words").code == 0
    assert fake.asked("POST", "/v1/backups")[0].body["passphrase"] == "of a file "


def test_a_schedule_is_sent_and_told(fake, corral, clean_environment, words):
    fake.on("PUT", "/v1/backups/schedule", SCHEDULED)
    done = corral("backup", "--schedule", "0 3 * * *", "--keep", "7", "--to", "backups")
    assert done.code == 0, done.err
    (request,) = fake.asked("PUT", "/v1/backups/schedule")
    assert request.body == {
        "cron": "0 3 * * *",
        "to": str(clean_environment.work / "backups"),
        "keep": 7,
        "plain": False,
        "passphrase": "tree of words",
    }
    assert "0 3 * * * (UTC) into /mnt/backups, encrypted, 7 are kept" in done.out
    fake.on("PUT", "/v1/backups/schedule", {})
    assert "no backups are made" in corral("backup", "--schedule", "off").out
    assert fake.asked("PUT", "/v1/backups/schedule")[-1].body == {}


@pytest.mark.parametrize("warning", ["", "the backup that was due was not made: x"])
def test_ls_says_how_it_goes(fake, corral, warning):
    fake.on("GET", "/v1/backups", {**SCHEDULED, "warning": warning})
    done = corral("backup", "ls")
    assert NAME in done.out
    assert "scheduled, encrypted" in done.out
    assert (done.code, warning in done.err) == (1 if warning else 0, True)


def test_a_warning_stands_beside_lists(fake, corral):
    fake.on("GET", "/v1/stacks", {"stacks": [], "warnings": ["no backup was made"]})
    fake.on("GET", "/v1/nodes", {"nodes": [], "warnings": ["no backup was made"]})
    for line in (("ls",), ("node", "ls")):
        assert "corral: warning: no backup was made" in corral(*line).err


@pytest.mark.parametrize("verb", [("backup", "verify"), ("restore",)])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"something else", "is not a backup of corral"),
        (b"corral-backup 9\n{}\n", "made by a newer corral"),
    ],
)
def test_what_is_no_backup_is_refused(corral, clean_environment, verb, content, said):
    (clean_environment.work / "file").write_bytes(content)
    done = corral(*verb, "file")
    assert done.code == 1
    assert said in done.err
    assert not clean_environment.state.exists()


def test_a_folder_of_this_machine_is_listed(corral, clean_environment):
    folder = clean_environment.work
    head = envelope.Head(cluster="c1", made_at=1795748400.0, corral="0.1.0")
    with (folder / NAME).open("wb") as out:
        envelope.write(out, head, [], None)
    (folder / "broken.backup").write_bytes(b"x")
    done = corral("backup", "ls", ".")
    assert done.code == 0
    assert "by hand, plain" in done.out
    assert "is not a backup of corral" in done.out


class Behind:
    """A controller that was restored and asks."""

    def __init__(self, fake, **report):
        self.report = {"behind": "older than what runs", **report}
        fake.on("GET", "/v1/state", lambda _: self.report)
        fake.on("POST", "/v1/state/adopt", self.adopt)
        row = {"name": "n1", "status": "ready"}
        fake.on("GET", "/v1/nodes", {"nodes": [row]})
        self.adopted = []

    def adopt(self, request):
        self.adopted.append(request.query)
        self.report = {"behind": ""}
        return {"done": ["stack shop: brought up to date"]}


class Found:
    class settings:  # noqa: N801 - stands for an attribute
        name = "n1"


@pytest.mark.parametrize(
    ("report", "adopt", "code", "adopted", "said"),
    [
        ({"behind": ""}, False, 0, False, "1 of 1 nodes are ready"),
        ({}, False, 0, True, "what runs was taken over"),
        ({"absent": ["n1"]}, False, 0, True, "what runs was taken over"),
        ({"absent": ["n1", "n3"]}, False, 1, False, "n3 did not answer"),
        ({"newer": ["stack a is older here"]}, False, 1, False, "corral state adopt takes over"),
        ({"newer": ["stack a is older here"]}, True, 0, True, "what runs was taken over"),
        ({"newer": ["a"], "absent": ["n3"]}, True, 1, False, "n3 did not answer"),
    ],
)
def test_after_a_restore_only_what_must_be_decided_is_asked(
    fake, capsys, report, adopt, code, adopted, said
):
    behind = Behind(fake, **report)
    assert restore._decided(api.Client(f"unix://{fake.path}"), Found, adopt=adopt) == code
    assert bool(behind.adopted) == adopted
    assert said in capsys.readouterr().err


OLDER = "older than what runs"


@pytest.mark.parametrize(
    ("then", "settled", "code", "said"),
    [
        ([OLDER, OLDER, ""], 60.0, 0, "1 of 1 nodes are ready"),  # carried out a moment later
        ([OLDER], 0.0, 1, OLDER),  # never
        (["another controller has a later epoch"], 60.0, 1, "another controller"),  # no use to wait
    ],
)
def test_what_was_decided_is_waited_for(fake, capsys, monkeypatch, then, settled, code, said):
    Behind(fake)
    told = list(then)

    def nodes(_):
        why = told.pop(0) if len(told) > 1 else told[0]
        return {"nodes": [{"name": "n1", "status": "ready"}], "undecided": why}

    fake.on("GET", "/v1/nodes", nodes)
    monkeypatch.setattr(restore, "SETTLED", settled)
    assert restore._decided(api.Client(f"unix://{fake.path}"), Found, adopt=False) == code
    err = capsys.readouterr().err
    assert said in err
    assert (OLDER in err) == (said == OLDER)


def test_restore_is_about_this_machine(corral, clean_environment):
    done = corral("-H", "unix:///elsewhere.sock", "restore", "file")
    assert (done.code, "is about this machine" in done.err) == (1, True)


FINDING = {"severity": "error", "key": "/tasks/a", "what": "and /tasks/b both have 10.0.0.1"}


@pytest.mark.parametrize(
    ("findings", "code"), [([], 0), ([FINDING], 1), ([{**FINDING, "severity": "warning"}], 0)]
)
def test_a_check_ends_with_what_it_found(fake, corral, findings, code):
    fake.on("GET", "/v1/state/check", {"records": 12, "findings": findings})
    done = corral("state", "check")
    assert done.code == code
    assert f"12 records, {code} error{'' if code else 's'}" in done.out
    assert ("both have" in done.out) == bool(findings)
    assert corral("state", "check", "--format", "json").code == code


def test_an_export_is_printed_as_asked(fake, corral):
    fake.on("GET", "/v1/state/export", {"state": {"cluster": {"id": "c1"}, "stacks": []}})
    assert corral("state", "export").out.startswith("{")
    assert corral("state", "export", "--format", "yaml").out == "cluster:\n  id: c1\nstacks: []\n"


def looked_at(*, name="n1", node="n-1", underlay="192.0.2.77", errors=()):
    check = StateCheck(findings=tuple(StateFinding(key=key, what="is wrong") for key in errors))
    settings = contents.Settings(node=node, name=name, underlay=underlay)
    return verifying.Verified(envelope.Head(cluster="c1"), settings, check)


@pytest.mark.parametrize(
    ("found", "own", "answers", "force", "said"),
    [
        (looked_at(), "", False, False, ""),
        (looked_at(), "n-1", True, False, ""),  # the machine itself
        (looked_at(underlay="127.0.0.1"), "", True, False, ""),  # another one with its address
        (looked_at(underlay=""), "", True, False, ""),
        (looked_at(), "n-2", False, False, "and not n1, which had the controller"),
        (looked_at(), "n-2", False, True, "and not n1, which had the controller"),
        (looked_at(), "", True, False, "a machine answers at its address 192.0.2.77"),
        (looked_at(), "", True, True, ""),
        (looked_at(errors=["/tasks/a"]), "", False, False, "/tasks/a is wrong"),
        (looked_at(errors=["/tasks/a"]), "", False, True, ""),
    ],
)
def test_where_a_restore_is_refused(monkeypatch, found, own, answers, force, said):
    monkeypatch.setattr(restoring, "answers", lambda _address: answers)
    if said:
        with pytest.raises(CliError, match=said) as caught:
            restore._refuse(found, own, force=force)
        assert caught.value.hint
    else:
        restore._refuse(found, own, force=force)


@pytest.mark.parametrize(
    ("stamp", "own"), [(None, ""), ({"cluster": "c1"}, "n-1"), ({"cluster": "c2"}, None)]
)
def test_whose_node_this_machine_is(clean_environment, stamp, own):
    agent = FakeController(str(clean_environment.run / "agent.sock"))
    agent.on("GET", "/v1/hello", {"stamp": stamp, "node": "n-1" if stamp else ""})
    try:
        if own is None:
            with pytest.raises(CliError, match="a node of another cluster"):
                restore._own_node("c1")
        else:
            assert restore._own_node("c1") == own
    finally:
        agent.close()


def test_over_a_controller_that_runs_or_ran_here_it_is_refused(fake, clean_environment):
    client = api.Client(f"unix://{fake.path}")
    with pytest.raises(CliError, match="the controller of cluster c1 runs here"):
        restore._refuse_controller(client, "", force=False)
    restore._refuse_controller(client, "", force=True)
    nobody = api.Client(f"unix://{clean_environment.run}/nobody.sock")
    restore._refuse_controller(nobody, "", force=False)
    with pytest.raises(CliError, match="keeps its state here"):
        restore._refuse_controller(nobody, "a controller keeps its state here", force=False)
