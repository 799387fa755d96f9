"""Secrets, configs, volumes: what is in the container, what is on disk, what stays."""

from __future__ import annotations

import uuid

import pytest

pytestmark = pytest.mark.real

# New every time: a checkout below /tmp is among the places that are searched for it.
CANARY = f"canary-{uuid.uuid4().hex}"
STACK = """
services:
  app:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; sleep inf & wait"]
    secrets:
      - token
      - {source: token, target: /etc/app/token, mode: 0440, uid: "65534", gid: "65534"}
    configs:
      - {source: settings, target: /etc/app/settings.ini}
    healthcheck: {test: [CMD, test, -s, /run/secrets/token], interval: 200ms}
  other:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
secrets: {token: {file: ./token.txt}}
configs: {settings: {file: ./settings.ini}}
"""


def sh(corral, script, service="app"):
    return corral("exec", "-T", service, "sh", "-c", script).stdout.strip()


def test_secrets_reach_the_container_and_nothing_else(corral):
    corral.compose(STACK, **{"token.txt": CANARY, "settings.ini": "[app]\nname = x\n"})
    corral("up", "-d")
    assert sh(corral, "cat /run/secrets/token") == CANARY
    assert sh(corral, "stat -c '%a %u %g' /run/secrets/token") == "444 0 0"
    assert sh(corral, "cat /etc/app/token; stat -c ' %a %u %g' /etc/app/token") == (
        f"{CANARY} 440 65534 65534"
    )
    assert sh(corral, "grep ' /run/secrets' /proc/mounts | head -1").split()[2] == "tmpfs"
    assert sh(corral, "ls /run/secrets 2>/dev/null | wc -l", "other") == "0"
    assert sh(corral, "cat /etc/app/settings.ini") == "[app]\nname = x"

    # Not in argv or environment of any process, no log, no state file, no database.
    found = corral.sh(
        f"grep -rla {CANARY} /var/lib/corral /var/log /tmp /var/tmp /etc 2>/dev/null; "
        f"grep -la {CANARY} /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null "
        "| grep -v /proc/$$/ ; true"
    ).splitlines()
    assert [path for path in found if "/proc/" not in path] == []
    assert CANARY not in corral("config").stdout + corral("ps", "-a", "--format", "json").stdout
    assert CANARY not in str(corral.get("/v1/stacks/app/releases"))
    # What is on the node is on tmpfs, for root.
    places = corral.sh(f"grep -rlE '{CANARY}' /run/corral 2>/dev/null || true").splitlines()
    for place in places:
        kind, mode = corral.sh(f"stat -f -c %T '{place}'; stat -c %a '{place}'").split()
        assert kind == "tmpfs"
        # The mode is the container's to see; what closes it to others is the folder above.
        refused = corral.host.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", place],
            check=False,
        )
        assert refused.returncode != 0, f"{place} ({mode}) can be read by anybody on the node"

    # Changed contents are a changed spec: the user is replaced, others are not.
    before = corral.processes()
    corral.host.write(f"{corral.folder}/token.txt", CANARY + "-2")
    corral("up", "-d")
    after = corral.processes()
    assert sh(corral, "cat /run/secrets/token") == CANARY + "-2"
    assert len(after.items() & before.items()) == 1
    corral("down", "-v")
    corral.until("gone from the node", lambda: corral.sh(
        f"grep -rla {CANARY} /run /var/lib/corral 2>/dev/null || true") == "")  # fmt: skip


def test_a_missing_secret_file_is_refused_with_its_line(corral):
    corral.compose(STACK, **{"settings.ini": ""})
    said = corral("up", "-d", code=1).stderr
    assert "token.txt" in said
    assert "compose.yaml:" in said


VOLUME = """
services:
  db:
    image: local/db:1
    build:
      context: .
      dockerfile_inline: |
        FROM busybox
        RUN mkdir -p /data/sub && echo seed > /data/sub/seed && chown -R 65534:65534 /data
    command: [sh, -c, "trap 'exit 0' TERM; sleep inf & wait"]
    volumes: ["data:/data", "/data2", "./bound:/bound:ro"]
volumes: {data: {}}
"""


def test_a_named_volume_is_filled_once_and_outlives_down(corral):
    corral.compose(VOLUME, **{"bound/file": "from the host\n"})
    corral("up", "-d", timeout=240)
    assert sh(corral, "cat /data/sub/seed; stat -c %u /data", "db") == "seed\n65534"
    assert sh(corral, "cat /bound/file", "db") == "from the host"
    assert "ead-only" in corral("exec", "-T", "db", "touch", "/bound/x", code=1).stderr
    sh(corral, "echo changed > /data/sub/seed; echo new > /data/new", "db")
    said = corral("down").stderr
    assert "network app_default: removed" in said
    assert "volume" not in said
    assert "app_data" in corral.sh("ls /var/lib/corral/agent/volumes")
    corral("up", "-d")
    assert sh(corral, "cat /data/sub/seed /data/new", "db") == "changed\nnew", "filled only once"
    assert corral("down", "-v").stderr.count("volume app_data: removed") == 1
    assert "app_data" not in corral.sh("ls /var/lib/corral/agent/volumes")
    assert corral.sh(f"cat {corral.folder}/bound/file") == "from the host", "never a bind's source"
    corral("up", "-d")
    assert sh(corral, "cat /data/sub/seed; ls /data", "db") == "seed\nsub"


UNNAMED = """
services:
  db:
    image: local/anon:1
    build:
      context: .
      dockerfile_inline: |
        FROM busybox
        RUN mkdir /seed && echo seed > /seed/one
        VOLUME /seed
    command: [sh, -c, "trap 'exit 0' TERM; sleep inf & wait"]
    volumes: [/data]
    environment: {MODE: "MODE-HERE"}
"""
HELD = "find /var/lib/corral/agent/anonymous -mindepth 1"


def test_anonymous_volumes_pass_from_task_to_task_and_go_with_the_stack(corral):
    """As Compose keeps them: of the file and of the image, over every way to replace a task."""
    read = "cat /data/kept /seed/kept; ls /seed"
    corral.compose(UNNAMED)
    corral("up", "-d", timeout=240)
    sh(corral, "echo mine > /data/kept; echo its > /seed/kept", "db")
    seen = corral.processes()
    for what, commands in (
        ("stop and start", [("stop",), ("start",)]),
        ("stop and up", [("stop",), ("up", "-d")]),
        ("recreated", [("up", "-d", "--force-recreate")]),
        ("changed", [("up", "-d")]),
    ):
        if what == "changed":
            corral.compose(UNNAMED.replace("MODE-HERE", "other"))
        for command in commands:
            corral(*command)
        assert sh(corral, read, "db") == "mine\nits\nkept\none", what
        before, seen = seen, corral.processes()
        assert seen != before, f"{what}: it is another task"
    corral("up", "-d", "-V")
    assert sh(corral, read, "db") == "mine\nits\nkept\none", "nothing was made anew"
    corral("up", "-d", "-V", "--force-recreate")
    assert sh(corral, "ls /data /seed", "db") == "/data:\n\n/seed:\none", "all of it is new"
    sh(corral, "echo mine > /data/kept", "db")
    corral("up", "-d", "--force-recreate")
    assert sh(corral, "cat /data/kept", "db") == "mine", "and passes on from there"
    corral("scale", "db=0")
    corral.until("the slot's are gone", lambda: corral.sh(HELD) == "")
    corral("scale", "db=1")
    assert sh(corral, "ls /data /seed", "db") == "/data:\n\n/seed:\none", "a new slot's are new"
    corral("stop")
    assert corral.sh(HELD) != ""
    corral("down")
    corral.until("nothing is left", lambda: corral.sh(HELD) == "")


MOUNTED = """
services:
  one:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    volumes: ["memory:/memory", "folder:/folder", "shut:/shut"]
  two:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    volumes: ["memory:/memory:ro", "folder:/folder"]
volumes:
  memory: {driver_opts: {type: tmpfs, device: tmpfs, o: "size=1m,mode=0700"}}
  folder: {driver_opts: {type: none, o: bind, device: /srv/data}}
  shut: {driver_opts: {type: none, o: "bind,ro", device: /srv/data}}
"""
SHARE = """
services:
  app:
    image: busybox
    command: [sleep, inf]
    volumes: ["share:/share"]
volumes:
  share: {driver_opts: {type: nfs, o: "addr=127.0.0.1,nfsvers=4,soft", device: ":/x"}}
"""


def test_driver_opts_are_mounted_while_a_task_has_them(corral):
    corral.compose(MOUNTED)
    said = corral("up", "-d", code=1).stderr
    assert "/srv/data of this node: it is not there" in said, said
    assert "make the folder there" in said
    corral.sh("mkdir -p /srv/data && echo theirs > /srv/data/file")
    corral("up", "-d")
    mounted = sh(corral, "grep -E ' /(memory|folder|shut) ' /proc/mounts", "one").splitlines()
    by_place = {line.split()[1]: line.split() for line in mounted}
    memory, folder, shut = (by_place[place] for place in ("/memory", "/folder", "/shut"))
    assert memory[2] == "tmpfs"
    assert {"size=1024k", "mode=700", "nosuid", "nodev"} <= set(memory[3].split(","))
    assert {"nosuid", "nodev"} <= set(folder[3].split(","))
    assert "ro" in shut[3].split(",")
    # One mount for both, and the node's own folder.
    sh(corral, "echo shared > /memory/word; echo ours >> /folder/file", "one")
    assert sh(corral, "cat /memory/word /folder/file", "two") == "shared\ntheirs\nours"
    assert corral("exec", "-T", "two", "touch", "/memory/x", code=1).returncode == 1
    # Neither a restart nor another agent takes it away; the last task does.
    corral("restart", "-t", "0", "one")
    assert sh(corral, "cat /memory/word", "one") == "shared"
    corral("down", "-v", "-t", "0")
    assert corral.sh("grep -c /run/corral/agent/mounted/ /proc/mounts || true").strip() == "0"
    assert corral.sh("cat /srv/data/file").split() == ["theirs", "ours"], "it stays"
    corral.sh("rm -r /srv/data")


def test_a_share_that_cannot_be_mounted_says_why(corral):
    corral.compose(f"{SHARE}x-corral: {{deadline: 5s}}\n")

    def says_why():
        # The deadline is the image's too: where that took all of it, nothing was mounted yet.
        said = corral("up", "-d", code=1)
        return "cannot mount nfs :/x for volume app_share" in said.stdout + said.stderr

    corral.until("the reason of the mount", says_why, 240)
