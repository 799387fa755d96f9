"""A volume's data as a file: all of it comes back as it was, or nothing is changed."""

from __future__ import annotations

import sys

import pytest

from tests.e2e.cluster import CHECKOUT

pytestmark = pytest.mark.real

FILE = "/root/saved/data.tar.gz"
STACK = """
services:
  app:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; sleep inf & wait"]
    volumes: [data:/data]
    stop_grace_period: 2s
volumes: {data: {}}
"""
CORRAL = f"PYTHONPATH={CHECKOUT} {sys.executable} -m orchestrator.cli.main"
HOME = "/var/lib/corral/agent/volumes/app_data/_data"
# What a database's folder is made of: whose it is, holes, links, names, times, attributes.
FILL = f"""
cd {HOME}; chown 999:998 .; chmod 0700 .
echo text > file; chmod 0640 file; chown 7:8 file; ln file second; ln -s /etc/passwd link
mkdir -p deep/er; touch -d '2001-02-03 04:05:06.789' deep/er/old; mkfifo pipe
truncate -s 64M holes; echo end >> holes; setfattr -n user.note -v x file 2>/dev/null || true
printf 'x' > "$(printf 'new\\nline')"
"""
SHOW = f"""
cd {HOME}; find . -printf '%P %m %U %G %y %l %s %n ' -exec sh -c '
[ -f "$0" ] && [ ! -L "$0" ] && cksum < "$0" || echo' {{}} \\; | sort
stat -c %y deep/er/old; stat -c %b holes; getfattr -d file 2>/dev/null || true
"""


@pytest.fixture
def app(corral):
    corral.compose(STACK)
    corral("up", "-d")
    corral.sh("mkdir /root/saved" + FILL)
    yield corral
    corral.sh("rm -r /root/saved")
    corral("down", "-v", code=None)


def test_a_volume_goes_to_a_file_and_comes_back_as_it_was(app):
    before = app.sh(SHOW)
    done = app("volume", "backup", "app_data", "-o", "/root/saved/data.tar.gz")
    assert "app/app ran meanwhile" in done.stderr
    assert app.sh("stat -c %a /root/saved/data.tar.gz") == "600"
    again = app("volume", "backup", "app_data", "-o", "/root/saved/data.tar.gz", code=1)
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
    done = app("volume", "backup", "app_data", "--pause", "-o", "/root/saved/plain.tar")
    assert "warning" not in done.stderr
    assert not any(row["paused"] for row in app.rows())

    # While it is in use nobody exchanges its data.
    done = app("volume", "restore", "app_data", "/root/saved/data.tar.gz", "-f", code=1)
    assert (done.returncode, "is in use by app-app-1" in done.stderr) == (1, True)

    app("stop")
    app.sh(f"echo other > {HOME}/file")
    done = app("volume", "restore", "app_data", "/root/saved/data.tar.gz", code=1)
    assert (done.returncode, "holds data already" in done.stderr) == (1, True)
    damaged = app.sh(f"cat {HOME}/file"), app.sh("ls /var/lib/corral/agent/volumes")
    for name, make in {
        "cut.tar.gz": "head -c 700 /root/saved/data.tar.gz",
        "flipped.tar.gz": f"{{ head -c 300 {FILE}; printf xx; tail -c +303 {FILE}; }}",
        "cut.tar": "head -c 4096 /root/saved/plain.tar",
        "no.tar": "head -c 4096 /dev/urandom",
        "empty.tar": "true",
        "zeros.tar": "head -c 1048576 /dev/zero",
    }.items():
        app.sh(f"{make} > /root/saved/{name}")
        done = app("volume", "restore", "app_data", f"/root/saved/{name}", "-f", code=1)
        assert done.returncode == 1, name
        assert (app.sh(f"cat {HOME}/file"), app.sh("ls /var/lib/corral/agent/volumes")) == damaged
    for name in ("data.tar.gz", "plain.tar"):
        app("volume", "restore", "app_data", f"/root/saved/{name}", "-f")
        assert app.sh(SHOW) == before
    app("start")
    assert app("exec", "-T", "app", "cat", "/data/file").stdout == "text\n"


def test_a_volume_that_is_gone_is_made_again_from_its_file(app):
    before = app.sh(SHOW)
    app.sh(f"{CORRAL} volume backup app_data -o - > /root/saved/out.tar")
    app("down", "-v")
    app.until("its data is gone", lambda: app.sh(f"test -e {HOME} || echo no") == "no")
    app.sh(f"{CORRAL} volume restore app_data - < /root/saved/out.tar")
    assert app.sh(SHOW) == before
    app("up", "-d")
    assert app.sh(SHOW) == before
    app("down", "-v")
    app("volume", "rm", "app_data")  # nobody's stack made it this time
