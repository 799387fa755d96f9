"""Keys of the Compose language in real containers: what each of them makes visible inside.

One stack for all of them: a service a key, and a question asked in its container.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.real
STACK = """
x-sleeper: &sleeper
  image: busybox
  command: [sleep, inf]
  stop_grace_period: 0s
services:
  shared:
    <<: *sleeper
    pid: host
    uts: host
    ipc: host
    command: [sh, -c, "sleep 424242 & exec sleep inf"]
  odd:
    <<: *sleeper
    ipc: none
    cpuset: "0"
    cpu_shares: 512
    mem_limit: 64m
    memswap_limit: 96m
    tmpfs: ["/exec:exec,uid=5,gid=6,mode=751,size=8m", "/plain"]
  node: {<<: *sleeper, network_mode: host, command: [nc, -ll, -p, "8123", -e, cat]}
  linked:
    <<: *sleeper
    links: ["here:mysql"]
    external_links: ["app-here-1:redis"]
    extra_hosts: ["host.docker.internal:host-gateway"]
    volumes_from: ["maker:ro"]
    hostname: "{{.Service.Name}}-{{.Task.Slot}}"
  maker:
    image: busybox
    command: [sh, -c, "mkdir -p /data/made/deep && echo found > /data/made/deep/file"]
    volumes: ["data:/data"]
  here:
    <<: *sleeper
    depends_on: {maker: {condition: service_completed_successfully}}
    volumes: [{type: volume, source: data, target: /sub, volume: {subpath: made/deep}}]
    platform: linux/amd64
    runtime: runc
volumes: {data: {}}
"""
# What was just started may not listen yet.
AGAIN = """
again() {{ for i in $(seq 200); do "$@" >/tmp/said 2>/dev/null && break; sleep 0.1; done
  cat /tmp/said; }}
asks() {{ echo hi | nc -w 5 $1 8123 | grep hi; }}
"""
SWAP = (
    "cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes 2>/dev/null "
    "|| cat /sys/fs/cgroup/memory.swap.max"
)
ASKED = {
    # service: command -> what it prints there; {host} etc. are asked of the machine
    ("shared", "readlink /proc/self/ns/pid"): "{pid}",
    ("shared", "hostname"): "{hostname}",
    ("shared", "readlink /proc/self/ns/ipc"): "{ipc}",
    ("odd", "test -e /dev/shm || echo none"): "none",
    ("odd", "stat -c '%a %u %g' /exec"): "751 5 6",
    ("odd", "cp /bin/busybox /exec/echo && /exec/echo ran"): "ran",
    ("odd", "cp /bin/busybox /plain/echo && /plain/echo ran 2>/dev/null || echo no"): "no",
    ("odd", "grep Cpus_allowed_list /proc/self/status | tr -d '[:space:]'"): (
        "Cpus_allowed_list:0"
    ),
    ("odd", SWAP): "{swap}",
    ("odd", "cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null || echo 512"): "512",
    ("here", "cat /sub/file"): "found",
    ("linked", "hostname"): "app_linked-1",
    ("linked", "cat /data/made/deep/file; touch /data/x 2>/dev/null || echo ro"): "found ro",
    ("linked", "again nslookup mysql | grep -c Address"): "2",
    ("linked", "again nslookup redis | grep -c Address"): "2",
    ("here", "nslookup mysql >/dev/null 2>&1 || echo unknown"): "unknown",
    ("linked", "again asks host.docker.internal"): "hi",
    ("linked", "nc -w 5 host.docker.internal 22 </dev/null 2>&1 | grep -c SSH"): "0",
    ("here", "echo hi | nc -w 5 {gateway} 8123 2>/dev/null || echo closed"): "closed",
}  # fmt: skip


def test_what_each_key_makes_of_a_container(corral):
    corral.compose(STACK)
    corral("up", "-d")
    machine = {
        "pid": corral.sh("readlink /proc/1/ns/pid"),
        "ipc": corral.sh("readlink /proc/1/ns/ipc"),
        "hostname": corral.sh("hostname"),
    }
    hosts = corral("exec", "-T", "linked", "cat", "/etc/hosts").stdout.splitlines()
    (machine["gateway"],) = [line.split()[0] for line in hosts if "host.docker.internal" in line]
    for service in dict.fromkeys(service for service, _ in ASKED):
        mine = {script: answer for (whose, script), answer in ASKED.items() if whose == service}
        script = AGAIN + "".join(f"({one}) | tr '\\n' ' '; echo\n" for one in mine)
        script = script.format(**machine)
        found = corral("exec", "-T", service, "sh", "-c", script).stdout.splitlines()
        for (one, answer), line in zip(mine.items(), found, strict=True):
            expected = (answer.format(**machine, swap=line.strip()),)
            if answer == "{swap}":  # the old and the new cgroups
                expected = (str(96 << 20), str(32 << 20))
            assert line.strip() in expected, (service, one)
    # In the node's own process namespace nothing but us ends what the container has begun.
    assert corral.sh("pgrep -f 'sleep 42424[2]'")
    corral("down", "-v")
    assert not corral.sh("pgrep -f 'sleep 42424[2]' || true")


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
    corral("down", "-v")
