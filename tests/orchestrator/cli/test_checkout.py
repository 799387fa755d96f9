"""Which commit a folder is at: read from .git without git, and never waited for."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from orchestrator.cli import checkout, deploy
from orchestrator.cli.errors import CliError
from specs import made_by

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git makes the checkouts")

WHO = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "PATH": os.environ["PATH"],
}


class Tree:
    """A checkout with two files, one of them in a folder."""

    def __init__(self, path):
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "main")
        (path / "compose.yaml").write_text("services: {}\n")
        (path / "src").mkdir()
        (path / "src" / "app.py").write_text("print(1)\n")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "first")

    def git(self, *words):
        done = subprocess.run(
            ("git", *words), cwd=self.path, env=WHO, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    @property
    def commit(self):
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.setattr(checkout, "BUDGET", 60.0)
    return Tree(tmp_path / "tree")


def unchanged(tree):
    pass


def edited(tree):
    (tree.path / "compose.yaml").write_text("services: {web: {}}\n")


def same_length(tree):
    file = tree.path / "src" / "app.py"
    file.write_text("print(2)\n")
    os.utime(file, ns=(1, 1))


def touched(tree):
    os.utime(tree.path / "compose.yaml", ns=(1, 1))


def deleted(tree):
    (tree.path / "src" / "app.py").unlink()


def staged(tree):
    (tree.path / "new.txt").write_text("x")
    tree.git("add", "new.txt")


def untracked(tree):
    (tree.path / "new.txt").write_text("x")


def made_executable(tree):
    (tree.path / "src" / "app.py").chmod(0o755)


def became_a_link(tree):
    (tree.path / "compose.yaml").unlink()
    (tree.path / "compose.yaml").symlink_to("src/app.py")


def link_kept(tree):
    (tree.path / "link").symlink_to("compose.yaml")
    tree.git("add", "-A")
    tree.git("commit", "-q", "-m", "link")
    os.utime(tree.path / "link", ns=(1, 1), follow_symlinks=False)


def committed_again(tree):
    edited(tree)
    tree.git("commit", "-q", "-a", "-m", "second")


def packed(tree):
    committed_again(tree)
    tree.git("gc", "-q")
    tree.git("pack-refs", "--all")


@pytest.mark.parametrize(
    ("change", "dirty"),
    [
        (unchanged, False),
        (edited, True),
        (same_length, True),
        (touched, False),
        (deleted, True),
        (staged, True),
        (untracked, False),
        (made_executable, True),
        (became_a_link, True),
        (link_kept, False),
        (committed_again, False),
        (packed, False),
    ],
)
def test_it_is_what_git_describe_says(tree, change, dirty):
    change(tree)
    said = checkout.found(str(tree.path / "src"))
    assert said == {"branch": "main", "commit": tree.commit, "dirty": dirty}
    assert tree.git("describe", "--always", "--dirty").endswith("-dirty") is dirty


def test_a_detached_head_has_no_branch(tree):
    tree.git("checkout", "-q", "--detach")
    assert checkout.found(str(tree.path)) == {"commit": tree.commit, "dirty": False}


def test_a_worktree_has_its_own_branch(tree, tmp_path):
    tree.git("worktree", "add", "-q", "-b", "side", str(tmp_path / "beside"))
    said = checkout.found(str(tmp_path / "beside"))
    assert said == {"branch": "side", "commit": tree.commit, "dirty": False}


def nothing(path):
    pass


def no_commit_yet(path):
    subprocess.run(("git", "init", "-q"), cwd=path, env=WHO, check=True)


def rubbish(path):
    (path / ".git").mkdir()
    (path / ".git" / "HEAD").write_bytes(b"\xff\xfe\0")


def pipes(path):
    (path / ".git").mkdir()
    os.mkfifo(path / ".git" / "HEAD")


def leads_nowhere(path):
    (path / ".git").write_text("gitdir: /no/such/folder\n")


@pytest.mark.parametrize("made", [nothing, no_commit_yet, rubbish, pipes, leads_nowhere])
def test_where_there_is_nothing_to_say_nothing_is_said(tmp_path, made):
    made(tmp_path)
    assert checkout.found(str(tmp_path)) == {}


@pytest.mark.parametrize("damage", ["cut", "version", "pipe", "gone"])
def test_an_index_that_cannot_be_read_leaves_the_commit(tree, damage):
    index = tree.path / ".git" / "index"
    data = index.read_bytes()
    index.unlink()
    if damage == "cut":
        index.write_bytes(data[: len(data) // 2])
    elif damage == "version":
        index.write_bytes(data[:7] + b"\x09" + data[8:])
    elif damage == "pipe":
        os.mkfifo(index)
    commit = (tree.path / ".git" / "refs" / "heads" / "main").read_text().strip()
    assert checkout.found(str(tree.path)) == {"branch": "main", "commit": commit}


def test_it_is_left_out_when_it_takes_too_long(tree, monkeypatch):
    monkeypatch.setattr(checkout, "BUDGET", -1.0)
    assert checkout.found(str(tree.path)) == {"branch": "main", "commit": tree.commit}


def test_a_message_has_a_length(tree):
    said = deploy.made_by(str(tree.path), "  new price list ")
    assert said["message"] == "new price list"
    assert said["directory"] == str(tree.path)
    assert made_by.MadeBy.model_validate(said).commit == tree.commit
    assert deploy.LONGEST_MESSAGE == made_by.LONGEST_MESSAGE
    with pytest.raises(CliError, match="501 characters are too many, 500 are possible"):
        deploy.made_by(message="x" * 501)
