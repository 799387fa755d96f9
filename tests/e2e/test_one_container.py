"""What one container gives its user: readable secrets, low ports, and a command inside at any time.

One stack serves most cases: nothing here changes it.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.real

STACK = """
services:
  files:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    secrets:
      - key
      - {source: key, target: group, mode: "0440", gid: "1000"}
      - {source: key, target: mine, mode: "0400"}
      - {source: key, target: theirs, mode: "0400", uid: "1000"}
    configs: [{source: plain, target: /etc/plain}]
  dropped:
    image: corral/debian-base:12
    user: "1000:1000"
    command: [sleep, inf]
    stop_grace_period: 0s
    cap_drop: [ALL]
    secrets: [key]
  closed:
    image: corral/debian-base:12
    user: "1000:1000"
    command: [sleep, inf]
    stop_grace_period: 0s
    cap_drop: [ALL]
    sysctls:
      net.ipv4.ip_unprivileged_port_start: "1024"
      net.ipv4.ping_group_range: "1 0"
  alone:
    image: corral/debian-base:12
    user: "1000:1000"
    command: [sleep, inf]
    stop_grace_period: 0s
    cap_drop: [ALL]
    network_mode: none
  node:
    image: busybox
    user: "1000:1000"
    command: [sleep, inf]
    stop_grace_period: 0s
    cap_drop: [ALL]
    network_mode: host
  heavy:
    image: busybox
    entrypoint: [""]
    command: [sh, -c, "env | wc -c; exec sleep inf"]
    stop_grace_period: 0s
    environment: {LONG: "${LONG}", LONGER: "${LONG}", LONGEST: "${LONG}"}
secrets: {key: {file: ./key}}
configs: {plain: {file: ./plain}}
"""
SECRET = "s3cret-canary"


@pytest.fixture
def app(corral):
    long = {".env": f"LONG={'x' * (128 * 1024 - 20)}\n"}
    corral.compose(STACK, key=SECRET, plain=SECRET, **long)
    corral.sh(f"chmod 600 {corral.folder}/key {corral.folder}/plain")
    corral("up", "-d")
    return corral


def reads(corral, user, path, service="files"):
    done = corral("exec", "-T", "-u", user, service, "cat", path, code=None)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0 and done.stdout == SECRET


def test_secrets_are_readable_inside_and_closed_outside(app):
    """The files are 0600 on the user's machine, which says nothing."""
    table = {
        "/run/secrets/key": {"0:0": True, "33:33": True, "1000:1000": True},
        "/run/secrets/group": {"0:0": True, "33:33": False, "33:1000": True},
        "/run/secrets/mine": {"0:0": True, "33:33": False, "1000:1000": False},
        "/run/secrets/theirs": {"33:33": False, "1000:1000": True},
        "/etc/plain": {"33:33": True},
    }
    for path, users in table.items():
        for user, may in users.items():
            assert reads(app, user, path) is may, (path, user)
    # A program that starts as root and becomes somebody else, and a container that never was root.
    become = ("su", "-s", "/bin/cat", "nobody", "/run/secrets/key")
    assert app("exec", "-T", "files", *become).stdout == SECRET
    assert reads(app, "1000:1000", "/run/secrets/key", "dropped")
    assert app("exec", "-T", "files", "sh", "-c", ">> /run/secrets/key", code=1), "read only"

    (source,) = app.sh("ls -d /run/corral/agent/files/*/0 | head -1").split()
    assert app.sh(f"cat {source}") == SECRET
    for user in ("nobody", "daemon"):
        tried = app.host.run(["setpriv", f"--reuid={user}", "--clear-groups", "cat", source],
                             check=False)  # fmt: skip
        assert tried.returncode == 1, (user, tried.stdout)
        assert "Permission denied" in tried.stderr


LISTEN = "import socket; socket.create_server(('', 80))"
PING = "import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM, s.IPPROTO_ICMP)"


def test_as_much_as_the_kernel_takes_is_started_and_no_entrypoint_is_none(app):
    def said():
        return app("logs", "--no-log-prefix", "heavy").stdout.split()

    app.until("it has started", lambda: bool(said()))
    assert int(said()[0]) > 3 * 128 * 1024 - 100
    app("exec", "-T", "heavy", "true")  # which has the same environment


@pytest.mark.parametrize(
    ("service", "low_port", "pings"),
    [
        ("dropped", True, True),
        ("alone", True, True),
        ("closed", False, False),  # explicit sysctls win
    ],
)
def test_low_ports_and_ping_without_root(app, service, low_port, pings):
    for script, may in ((LISTEN, low_port), (PING, pings)):
        # The exit code of Python's PermissionError is 1, and its traceback is not one of ours.
        tried = f"{script.replace('import', 'import sys; sys.excepthook = print; import', 1)}"
        done = app("exec", "-T", service, "python3", "-c", tried, code=None)
        assert (done.returncode == 0) is may, done.stdout
        assert may or "Permission" in done.stdout, done.stdout


def test_the_nodes_own_network_is_left_as_it_is(app):
    read = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range"
    assert app("exec", "-T", "node", "sh", "-c", read).stdout.strip() == app.sh(read)
    assert app.sh(read).split()[0] == "1024"
