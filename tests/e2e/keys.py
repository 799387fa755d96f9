"""One service a key, and a question asked in its container: for one host and for several.

What is asked must be answered whatever node the service is on. ``AWAY`` spreads the services over
two nodes; what a volume ties together stays together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

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
    command: [sh, -c, "trap 'exit 0' TERM; sleep inf & wait"]
    stop_grace_period: 20s
    post_start: [{command: [sh, -c, "echo $$HELLO >> /memory/said"], environment: {HELLO: hi}}]
    pre_stop: [{command: echo bye, working_dir: /}, {command: [sh, -c, "echo bye >> /memory/said"]}]
    ipc: none
    cpuset: "0"
    cpu_shares: 512
    mem_limit: 64m
    memswap_limit: 96m
    tmpfs: ["/exec:exec,uid=5,gid=6,mode=751,size=8m", "/plain", "/old:noatime,ro"]
    volumes:
      - {type: tmpfs, target: /long, tmpfs: {size: 1m, mode: 0750}}
      - memory:/memory
      - folder:/folder
  node: {<<: *sleeper, network_mode: host, command: [nc, -ll, -p, "8123", -e, cat]}
  linked:
    <<: *sleeper
    links: ["here:mysql", "far:distant"]
    external_links: ["app-here-1:redis", "app-far-1:away"]
    environment: {WHERE: "{{.Node.Hostname}}"}
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
  far:
    <<: *sleeper
    ipc: shareable
    command: [sh, -c, "echo run >> /runs; [ $$(wc -l < /runs) -lt 3 ] || exec sleep inf"]
    deploy: {restart_policy: {condition: unless-stopped, delay: 10ms}}
    volumes: ["slotted:/slotted/{{.Task.Slot}}"]
  once:
    image: busybox
    command: ["true"]
    deploy: {restart_policy: {condition: on-failure}}
  again:
    <<: *sleeper
    command: [sh, -c, "echo run >> /runs; [ $$(wc -l < /runs) -lt 2 ] || exec sleep inf"]
    deploy: {restart_policy: {condition: always, delay: 10ms}}
  never:
    image: busybox
    command: ["true"]
    deploy: {restart_policy: {condition: "no"}}
networks:
  default: {ipam: {driver: default, config: [{subnet: 10.99.0.0/24}]}}
volumes:
  data: {}
  memory: {driver_opts: {type: tmpfs, device: tmpfs, o: "size=1m,mode=0700"}}
  folder: {driver_opts: {type: none, o: "bind,ro", device: /usr/share}}
  slotted: {name: "{{.Service.Name}}-{{.Task.Slot}}"}
"""
AWAY = """
services:
  shared: {deploy: &n3 {placement: {constraints: [node.hostname == n3]}}}
  far: {deploy: *n3}
  once: {deploy: *n3}
  again: {deploy: *n3}
  odd: {deploy: *n3}
  maker: {deploy: &n2 {placement: {constraints: [node.hostname == n2]}}}
  node: {deploy: *n2}
  linked: {deploy: *n2}
  here: {deploy: *n2}
  never: {deploy: *n2}
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
SHARES = "cat /sys/fs/cgroup/cpu/cpu.shares 2>/dev/null || cat /sys/fs/cgroup/cpu.weight"
# The old control groups say it in bytes and shares, the new ones in others: which is either.
EITHER = {"{swap}": (str(96 << 20), str(32 << 20)), "{shares}": ("512", "20")}
ASKED = {
    # service: command -> what it prints there; {host} etc. are asked of the machine
    ("shared", "readlink /proc/self/ns/pid"): "{pid}",
    ("shared", "hostname"): "{hostname}",
    ("shared", "readlink /proc/self/ns/ipc"): "{ipc}",
    ("odd", "test -e /dev/shm || echo none"): "none",
    ("odd", "stat -c '%a %u %g' /exec"): "751 5 6",
    ("odd", "cp /bin/busybox /exec/echo && /exec/echo ran"): "ran",
    ("odd", "cp /bin/busybox /plain/echo && /plain/echo ran 2>/dev/null || echo no"): "no",
    ("odd", "stat -c %a /long /memory"): "750 700",
    ("odd", "grep -E ' /(long|memory) ' /proc/mounts | grep -c size=1024k"): "2",
    ("odd", "grep ' /old ' /proc/mounts | grep -c ro,.*noatime"): "1",
    ("odd", "cat /memory/said"): "hi bye hi",
    ("odd", "grep Cpus_allowed_list /proc/self/status | tr -d '[:space:]'"): (
        "Cpus_allowed_list:0"
    ),
    ("odd", SWAP): "{swap}",
    ("odd", SHARES): "{shares}",
    ("odd", "stat -c %i /folder; touch /folder/x 2>/dev/null || echo ro"): "{share} ro",
    ("again", "wc -l < /runs"): "2",
    ("here", "cat /sub/file"): "found",
    ("linked", "hostname"): "app_linked-1",
    ("linked", "cat /data/made/deep/file; touch /data/x 2>/dev/null || echo ro"): "found ro",
    ("linked", "again nslookup mysql | grep -c Address"): "2",
    ("linked", "again nslookup redis | grep -c Address"): "2",
    ("linked", "again nslookup distant | grep -c Address"): "2",
    ("linked", "again nslookup away | grep -c Address"): "2",
    ("linked", "ping -c1 -w30 distant >/dev/null && echo there"): "there",
    ("linked", "echo $WHERE"): "{node}",
    ("linked", "hostname -i | cut -d. -f1-3"): "10.99.0",
    ("far", "wc -l < /runs"): "3",
    ("far", "grep -c ' /slotted/1 ' /proc/mounts"): "1",
    ("far", "[ $(readlink /proc/self/ns/ipc) = {ipc} ] || echo own"): "own",
    ("here", "nslookup mysql >/dev/null 2>&1 || echo unknown"): "unknown",
    ("linked", "again asks host.docker.internal"): "hi",
    ("linked", "nc -w 5 host.docker.internal 22 </dev/null 2>&1 | grep -c SSH"): "0",
    ("here", "echo hi | nc -w 5 {gateway} 8123 2>/dev/null || echo closed"): "closed",
}  # fmt: skip


def ask(corral: Any, machine: Callable[[str], Callable[[str], str]]) -> None:
    """Ask everything; ``machine`` returns what runs a script on the node of a service."""
    shared = machine("shared")
    corral("restart", "odd")
    known = {
        "pid": shared("readlink /proc/1/ns/pid"),
        "ipc": shared("readlink /proc/1/ns/ipc"),
        "hostname": shared("hostname"),
        "share": shared("stat -c %i /usr/share"),
        "node": machine("linked")("hostname"),
    }
    hosts = corral("exec", "-T", "linked", "cat", "/etc/hosts").stdout.splitlines()
    (known["gateway"],) = [line.split()[0] for line in hosts if "host.docker.internal" in line]
    for service in dict.fromkeys(service for service, _ in ASKED):
        mine = {script: answer for (whose, script), answer in ASKED.items() if whose == service}
        script = AGAIN + "".join(f"({one}) | tr '\\n' ' '; echo\n" for one in mine)
        script = script.format(**known)
        found = corral("exec", "-T", service, "sh", "-c", script).stdout.splitlines()
        for (one, answer), line in zip(mine.items(), found, strict=True):
            expected = EITHER.get(answer) or (answer.format(**known),)
            assert line.strip() in expected, (service, one)
    rows = corral.get("/v1/stacks/app/tasks", all=True)["tasks"]
    for service in ("once", "never"):
        ended = [row["state"] for row in rows if row["service"] == service]
        assert ended == ["complete"], f"{service}: its condition is content with 0"
    volumes = corral("volume", "ls", "-q").stdout.splitlines()
    assert "app_far-1" in volumes, "a volume has its task's name"
    # In the node's own process namespace nothing but us ends what the container has begun.
    assert shared("pgrep -f 'sleep 42424[2]'")
    corral("down", "-v")
    assert not shared("pgrep -f 'sleep 42424[2]' || true")
