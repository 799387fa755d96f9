"""Keys of the Compose language in real containers: what each of them makes visible inside.

One stack for all of them (``keys.py``): a service a key, and a question asked in its container.
"""

from __future__ import annotations

import pytest

from tests.e2e import keys

pytestmark = pytest.mark.real


def test_what_each_key_makes_of_a_container(corral):
    corral.compose(keys.STACK)
    corral("up", "-d")
    keys.ask(corral, lambda service: corral.sh)


HOOKS = """
x-sleeper: &sleeper
  image: busybox
  command: [sh, -c, "trap 'echo term >> /kept/said; exit 0' TERM; sleep inf & wait"]
  volumes: ["kept:/kept"]
  working_dir: /tmp
  environment: {COLOUR: green, SHAPE: round}
  user: "65534:65534"
services:
  hooked:
    <<: *sleeper
    post_start:
      - command: sh -c 'touch /kept/said; chmod 666 /kept/said; echo hello'
        user: root
      - command: [sh, -c, "echo $$(id -u) $$(pwd) $$COLOUR $$SHAPE >> /kept/said"]
        working_dir: /
        environment: {COLOUR: red}
      - command: [sh, -c, "grep CapEff /proc/self/status | tail -c 6 >> /kept/said"]
        privileged: true
        user: root
    pre_stop:
      - command: [sh, -c, "echo bye >> /kept/said; exit 4"]
  guest:
    <<: *sleeper
    depends_on: [hooked]
  broken:
    <<: *sleeper
    profiles: [broken]
    post_start: [{command: [sh, -c, "echo no such table >&2; exit 3"], user: root}]
  slow:
    <<: *sleeper
    profiles: [slow]
    post_start:
      - command: [sh, -c, "test -e /kept/go || { echo began > /kept/slow; exec sleep 31337; }"]
        user: root
volumes: {kept: {}}
"""


def test_hooks_run_with_what_they_ask_for_at_every_start_and_stop(corral):
    corral.compose(HOOKS)
    corral("up", "-d")
    said = ["65534 / red round", "fffff"]

    def lines():
        return corral("exec", "-T", "guest", "cat", "/kept/said").stdout.splitlines()

    assert lines() == said, "who depends on it starts when its hooks are over"
    assert corral("logs", "--no-log-prefix", "hooked").stdout == "post_start hook: hello\n"
    corral("restart", "hooked")
    said += ["bye", "term", *said]
    assert lines() == said
    assert "pre_stop hook: failed: exited with 4" in corral("logs", "hooked").stderr
    corral("kill", "-s", "KILL", "hooked")
    assert lines() == said, "a kill is no stop"
    failed = corral("--profile", "broken", "up", "-d", "broken", code=1)
    assert "post_start hook: exited with 3: no such table" in failed.stdout + failed.stderr
    assert "post_start hook: exited with 3" in corral("ps", "-a", "broken").stdout

    # The agent is killed in the middle of a hook: what is left of it ends, and it is begun anew.
    up = corral.popen("--profile", "slow", "up", "-d", "slow")
    began = ("exec", "-T", "-u", "root", "guest", "cat", "/kept/slow")
    corral.until("the hook runs", lambda: corral(*began, code=None).stdout == "began\n")
    corral("exec", "-T", "-u", "root", "guest", "touch", "/kept/go")
    pid = corral.pid("slow-1")
    assert corral.sh("pgrep -f 'sleep 3133[7]'")
    corral.kill("agent")
    assert up.finish()[0] == 0
    assert corral.pid("slow-1") == pid
    assert not corral.sh("pgrep -f 'sleep 3133[7]' || true")
    corral("down", "-v")
