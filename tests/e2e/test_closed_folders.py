"""Nobody but root gets at what containers keep on a node: no setuid program, no file, no name.

Containers' roots are mounted without nosuid, because su, sudo and ping must work inside; so the
way to them is closed, and that is all that keeps a local user from being root.
"""

from __future__ import annotations

import json
import re
import sys

import pytest

pytestmark = pytest.mark.real

STACK = """
services:
  web:
    image: corral/debian-base:12
    command: [sleep, inf]
    user: "1000:1000"
    stop_grace_period: 0s
    environment: {PASSWORD: s3cret-canary}
    secrets: [key]
    configs: [{source: plain, target: /etc/plain}]
    volumes:
      - data:/data
      - {type: volume, source: data, target: /part, volume: {subpath: inner}}
volumes: {data: {}}
secrets: {key: {file: ./key}}
configs: {plain: {file: ./plain}}
"""
OPEN = ("/run/corral", "/var/lib/corral")
CLOSED = ("/run/corral/agent", "/var/lib/corral/agent", "/var/lib/corral/controller")
# Pid files of the daemons, and names of nodes for people.
PUBLIC = re.compile(r"/run/corral/[a-z.]+$")
# Which of the paths on standard input can this user see, and which can it open?
WALK = """
import json, os, sys
seen, read = [], []
for path in json.load(sys.stdin):
    try:
        os.lstat(path)
        seen.append(path)
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        read.append(path)
    except OSError:
        pass
print(json.dumps([seen, read]))
"""
MARK = "cp /usr/bin/python3 {0}/rootly && chmod 4755 {0}/rootly"
WHO = "import os; print(os.getuid(), os.geteuid())"


@pytest.fixture
def app(corral):
    corral.compose(STACK, key="s3cret-canary", plain="s3cret-canary")
    corral.host.write(
        f"{corral.folder}/first.yaml", STACK.replace("      - {type", "      # {type")
    )
    corral("-f", "first.yaml", "up", "-d")
    corral("-f", "first.yaml", "exec", "-T", "-u", "0", "web", "mkdir", "-p", "/data/inner")
    corral("up", "-d")
    return corral


def as_user(corral, user, group, *command, **options):
    # env: setpriv itself still has root's capabilities when it starts a program.
    words = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "env", *command]
    return corral.host.run(words, check=False, **options)


def made_as_on_a_node(app):
    """Make the user and group of `node add`, who may use the sockets; return the group's number."""
    app.sh("getent group corral || groupadd --system corral")
    home = "--home-dir /var/lib/corral/ssh --no-create-home"
    app.sh(f"id -u corral || useradd --system --gid corral {home} --shell /bin/sh corral")
    app.sh("chgrp corral /run/corral/*.sock")
    return app.sh("getent group corral | cut -d: -f3")


@pytest.fixture(autouse=True)
def nobody_is_left(corral):
    """Take the user away again, and what useradd wrote beside the lists of users."""
    yield
    corral.sh("userdel corral; groupdel corral; true", check=False)


def test_setuid_works_inside_and_nobody_outside_gets_there(app):
    # su, sudo and ping must work inside; a volume brings no such programs.
    for folder, becomes in (("/tmp", "0"), ("/data", "1000")):
        app("exec", "-T", "-u", "0", "web", "sh", "-c", MARK.format(folder))
        done = app("exec", "-T", "web", f"{folder}/rootly", "-c", WHO)
        assert done.stdout.split() == ["1000", becomes], folder

    # What the daemons write under a passing name may go while it is looked at.
    found = app.sh(f"find {' '.join(OPEN)} || true").splitlines()
    marked = [path for path in found if path.endswith("/rootly")]
    assert any(path.startswith("/run/corral/agent/rootfs/") for path in marked), marked
    assert any(path.startswith("/var/lib/corral/agent/volumes/") for path in marked), marked
    assert app.sh(f"stat -c %a {marked[0]}") == "4755"
    assert any(path.startswith("/run/corral/agent/subpaths/") for path in found)

    group = made_as_on_a_node(app)
    for user, its_group in (
        ("nobody", "nogroup"),
        ("daemon", "daemon"),
        ("corral", "corral"),
        ("4242", group),
    ):
        for path in marked:
            done = as_user(app, user, its_group, path, "-c", WHO)
            assert done.returncode != 0, (user, path, done.stdout)
        done = as_user(app, user, its_group, sys.executable, "-c", WALK, stdin=json.dumps(found))
        seen, read = json.loads(done.stdout)
        inside = [path for path in seen if path.startswith(tuple(f"{top}/" for top in CLOSED))]
        assert inside == [], user
        files = [path for path in read if path not in OPEN and not PUBLIC.match(path)]
        assert files == [], user
        assert "/run/corral" in seen, "the sockets are reached through it"
    # What the group is for: its sockets, which are how a controller reaches the node.
    test = "test -w /run/corral/agent.sock && echo may"
    assert as_user(app, "corral", "corral", "sh", "-c", test).stdout.strip() == "may"
    assert as_user(app, "nobody", "nogroup", "sh", "-c", test).stdout.strip() == ""


def test_folders_an_earlier_version_left_open_are_closed_at_start(app):
    for top in CLOSED[:2]:
        app.sh(f"chmod 755 {top}")
    before = app.processes()
    old = app.daemon("agent")
    app.kill("agent")
    app.until("another agent", lambda: app.daemon("agent") not in (0, old))
    modes = f"stat -c %a {' '.join(CLOSED[:2])}"
    app.until("closed folders", lambda: app.sh(modes).split() == ["700", "700"])
    assert app.processes() == before
