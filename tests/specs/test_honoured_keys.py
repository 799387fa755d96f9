"""Every key called honoured ends where it takes effect.

From a file through loading and compiling to the task's config.json, or, for what other
parts of the agent and the controller do, to the field of the spec they read.
"""

import pytest

from agent.runtime.bundle import Inputs, NodeDevice, NodeTraits, User, build
from agent.vocabulary import ImageConfig
from specs.compile.stack import compile_stack
from specs.compile.support import SUPPORT, KeyVerdict
from specs.stack import Condition, Healthcheck, Hook, Ulimit
from specs.states import Desired
from specs.wire import Assignment

HOST = NodeTraits(runtime="runc", init="/usr/bin/tini-static")
IMAGE = ImageConfig(digest="sha256:0", entrypoint=("/entry",), command=("serve",))


def compiled(folder, body):
    """Return the service ``web`` with these attributes, compiled."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    image = "" if body.startswith(("image", "build")) else "    image: i:1\n"
    project = folder.load(
        f"services:\n  web:\n{image}{lines}  db: {{image: 'd:1'}}\n"
        "  lender: {image: 'l:1', volumes: ['data:/lent']}\n"
        "networks: {front: , back: }\nvolumes: {data: }\n"
        "secrets: {key: {environment: K}}\nconfigs: {conf: {content: c}}\n"
    )
    spec, warnings = compile_stack(project.model, {}, "demo")
    assert not [w for w in warnings if "not honoured" in w.message], warnings
    return spec.services["web"]


def config_of(service):
    inputs = Inputs(
        assignment=Assignment(
            id="t1",
            stack="demo",
            service="web",
            slot=1,
            name="demo-web-1",
            spec=service.task,
            desired=Desired.RUNNING,
        ),
        image=IMAGE,
        root="/root",
        user=User(),
        netns="/netns",
        hostname=service.task.hostname or "t1",
        etc={},
        devices=[NodeDevice(d.target, "c", 10, 229) for d in service.task.devices],
    )
    return build(inputs, HOST).config


def capabilities(config):
    return config["process"]["capabilities"]["bounding"]


def namespaces(config):
    return {one["type"] for one in config["linux"]["namespaces"]}


def bound(config, target):
    return any(m["destination"] == target and m["type"] == "bind" for m in config["mounts"])


# key -> (what the file says, does config.json carry it)
IN_THE_BUNDLE = {
    "annotations": ("annotations: {a: b}", lambda c: c["annotations"]["a"] == "b"),
    "cap_add": ("cap_add: [NET_ADMIN]", lambda c: "CAP_NET_ADMIN" in capabilities(c)),
    "cap_drop": ("cap_drop: [CHOWN]", lambda c: "CAP_CHOWN" not in capabilities(c)),
    "command": ("command: [run, it]", lambda c: c["process"]["args"] == ["/entry", "run", "it"]),
    "entrypoint": ("entrypoint: [own]", lambda c: c["process"]["args"] == ["own"]),
    "environment": ("environment: {A: 1}", lambda c: "A=1" in c["process"]["env"]),
    "working_dir": ("working_dir: /srv", lambda c: c["process"]["cwd"] == "/srv"),
    "hostname": ("hostname: me", lambda c: c["hostname"] == "me"),
    "domainname": (
        "domainname: example.test",
        lambda c: c["annotations"]["org.corral.domainname"] == "example.test",
    ),
    "init": ("init: true", lambda c: c["process"]["args"][0] == "/dev/.corral-init"),
    "tty": ("tty: true", lambda c: c["process"]["terminal"] is True),
    "read_only": ("read_only: true", lambda c: c["root"]["readonly"] is True),
    "privileged": ("privileged: true", lambda c: "maskedPaths" not in c["linux"]),
    "security_opt": (
        "security_opt: [no-new-privileges]",
        lambda c: c["process"]["noNewPrivileges"] is True,
    ),
    "devices": (
        "devices: [/dev/fuse]",
        lambda c: c["linux"]["devices"][0]["path"] == "/dev/fuse",
    ),
    "ulimits": (
        "ulimits: {nofile: {soft: 10, hard: 20}}",
        lambda c: c["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
    ),
    "sysctls": (
        "sysctls: {net.core.somaxconn: 9}",
        lambda c: c["linux"]["sysctl"]["net.core.somaxconn"] == "9",
    ),
    "shm_size": (
        "shm_size: 1m",
        lambda c: any("size=1048576" in mount["options"] for mount in c["mounts"]),
    ),
    "oom_score_adj": ("oom_score_adj: 7", lambda c: c["process"]["oomScoreAdj"] == 7),
    "mem_limit": (
        "mem_limit: 64m",
        lambda c: c["linux"]["resources"]["memory"]["limit"] == 64 << 20,
    ),
    "mem_reservation": (
        "mem_reservation: 32m\nmem_limit: 64m",
        lambda c: c["linux"]["resources"]["memory"]["reservation"] == 32 << 20,
    ),
    "cpus": ("cpus: 0.5", lambda c: c["linux"]["resources"]["cpu"]["quota"] == 50_000),
    "cpu_quota": ("cpu_quota: 25000", lambda c: c["linux"]["resources"]["cpu"]["quota"] == 25_000),
    "cpu_period": (
        "cpu_quota: 25000\ncpu_period: 50000",
        lambda c: c["linux"]["resources"]["cpu"]["quota"] == 50_000,
    ),
    "cpuset": ("cpuset: 0-1", lambda c: c["linux"]["resources"]["cpu"]["cpus"] == "0-1"),
    "cpu_shares": ("cpu_shares: 9", lambda c: c["linux"]["resources"]["cpu"]["shares"] == 9),
    "memswap_limit": (
        "memswap_limit: 128m\nmem_limit: 64m",
        lambda c: c["linux"]["resources"]["memory"]["swap"] == 128 << 20,
    ),
    "pid": ("pid: host", lambda c: "pid" not in namespaces(c)),
    "ipc": ("ipc: host", lambda c: "ipc" not in namespaces(c) and bound(c, "/dev/shm")),
    "uts": ("uts: host", lambda c: "uts" not in namespaces(c) and "hostname" not in c),
    "pids_limit": ("pids_limit: 9", lambda c: c["linux"]["resources"]["pids"]["limit"] == 9),
}

# key -> (what the file says, does the compiled service carry it to whoever does it)
IN_THE_SPEC = {
    "attach": ("attach: false", lambda s: s.attach is False),
    "build": ("build: {context: /c, target: t}", lambda s: s.build.target == "t"),
    "configs": ("configs: [conf]", lambda s: s.task.configs[0].target == "/conf"),
    "container_name": ("container_name: me", lambda s: s.container_name == "me"),
    "depends_on": (
        "depends_on: {db: {condition: service_healthy, restart: true, required: false}}",
        lambda s: (
            s.depends_on["db"].condition is Condition.HEALTHY
            and s.depends_on["db"].restart
            and not s.depends_on["db"].required
        ),
    ),
    "deploy": ("deploy: {replicas: 3}", lambda s: s.replicas == 3),
    "deploy.labels": (
        "deploy: {labels: {a: b}}",
        lambda s: s.labels == {"a": "b"} and s.task.labels == {},
    ),
    "deploy.mode": ("deploy: {mode: global}", lambda s: s.mode == "global"),
    "dns": ("dns: 1.1.1.1", lambda s: s.task.dns == ("1.1.1.1",)),
    "dns_opt": ("dns_opt: [x]", lambda s: s.task.dns_opt == ("x",)),
    "dns_search": ("dns_search: a.test", lambda s: s.task.dns_search == ("a.test",)),
    "expose": ("expose: ['80-81']", lambda s: [p.target for p in s.task.expose] == [80, 81]),
    "extra_hosts": (
        "extra_hosts: [a=1.2.3.4]",
        lambda s: s.task.extra_hosts == (("a", "1.2.3.4"),),
    ),
    "group_add": ("group_add: [g, 7]", lambda s: s.task.group_add == ("g", "7")),
    "healthcheck": (
        "healthcheck: {test: 'x', interval: 3s, retries: 2, start_period: 4s}",
        lambda s: (
            s.task.healthcheck
            == Healthcheck(test=("CMD-SHELL", "x"), interval=3.0, retries=2, start_period=4.0)
        ),
    ),
    "image": ("image: x:2", lambda s: s.task.image == "x:2"),
    "labels": ("labels: {a: b}", lambda s: s.task.labels == {"a": "b"}),
    "links": ("links: ['db:mysql', db]", lambda s: s.task.links == (("mysql", "db"),)),
    "external_links": (
        "external_links: ['other-db-1:redis']",
        lambda s: s.task.links == (("redis", "other-db-1"),),
    ),
    "logging": (
        "logging: {driver: json-file, options: {max-size: 1m, max-file: '2'}}",
        lambda s: (s.task.logging.max_size, s.task.logging.max_files) == (1 << 20, 2),
    ),
    "network_mode": ("network_mode: host", lambda s: s.task.network_mode == "host"),
    "networks": (
        "networks: {front: {aliases: [a], gw_priority: 2}, back: }",
        lambda s: s.task.networks[1].aliases == ("a",) and s.task.networks[1].gw_priority == 2,
    ),
    "ports": (
        "ports: ['127.0.0.1:80:8080/udp']",
        lambda s: (
            s.task.ports[0].model_dump()
            == {
                "target": 8080,
                "published": 80,
                "protocol": "udp",
                "host_ip": "127.0.0.1",
                "mode": "ingress",
            }
        ),
    ),
    "platform": ("platform: linux/arm64/v8", lambda s: s.task.platform == "linux/arm64"),
    "runtime": ("runtime: runc", lambda s: s.task.image == "i:1"),  # the node's own, whichever
    "post_start": (
        "post_start: [{command: a 'b c', user: '0', privileged: true}, {command: [d]}]",
        lambda s: (
            s.task.post_start
            == (Hook(command=("a", "b c"), user="0", privileged=True), Hook(command=("d",)))
        ),
    ),
    "pre_stop": (
        "pre_stop: [{command: [a], working_dir: /w, environment: {A: 1, B: null}}]",
        lambda s: (
            s.task.pre_stop == (Hook(command=("a",), working_dir="/w", environment={"A": "1"}),)
        ),
    ),
    "pull_policy": ("pull_policy: always", lambda s: s.pull_policy == "always"),
    "restart": (
        "restart: on-failure:3",
        lambda s: (s.task.restart.condition, s.task.restart.max_attempts) == ("on-failure", 3),
    ),
    "scale": ("scale: 2", lambda s: s.replicas == 2),
    "secrets": (
        "secrets: [{source: key, target: k, uid: '5', mode: 0440}]",
        lambda s: (
            (s.task.secrets[0].target, s.task.secrets[0].uid, s.task.secrets[0].mode)
            == ("/run/secrets/k", 5, 0o440)
        ),
    ),
    "stdin_open": ("stdin_open: true", lambda s: s.task.stdin_open),
    "stop_grace_period": ("stop_grace_period: 1m30s", lambda s: s.task.stop_grace == 90.0),
    "stop_signal": ("stop_signal: SIGINT", lambda s: s.task.stop_signal == "SIGINT"),
    "tmpfs": (
        "tmpfs: ['/t:size=1m,mode=700']",
        lambda s: (s.task.mounts[0].tmpfs_size, s.task.mounts[0].tmpfs_mode) == (1 << 20, 0o700),
    ),
    "user": ("user: '7:8'", lambda s: s.task.user == "7:8"),
    "volumes": (
        "volumes: ['data:/d:ro', {type: volume, source: data, target: /e, volume: {subpath: s}}]",
        lambda s: s.task.mounts[0].read_only and s.task.mounts[1].subpath == "s",
    ),
    "volumes_from": (
        "volumes_from: [lender:ro]",
        lambda s: (
            [(m.source, m.target, m.read_only) for m in s.task.mounts] == [("data", "/lent", True)]
        ),
    ),
    "deploy.update_config.order": (
        "deploy: {update_config: {order: start-first, parallelism: 2, delay: 3s, monitor: 4s}}",
        lambda s: (
            (s.update.order, s.update.parallelism, s.update.delay, s.update.monitor)
            == ("start-first", 2, 3.0, 4.0)
        ),
    ),
    "deploy.placement": (
        "deploy: {placement: {constraints: [node.role==x], max_replicas_per_node: 1}}",
        lambda s: (
            s.placement.constraints == ("node.role==x",) and s.placement.max_replicas_per_node == 1
        ),
    ),
    "deploy.resources": (
        "deploy: {resources: {limits: {pids: 5}, reservations: {cpus: '0.5', memory: 8m}}}",
        lambda s: (
            s.task.resources.limits.pids == 5
            and s.task.resources.reservations.cpus == 0.5
            and s.task.resources.reservations.memory == 8 << 20
        ),
    ),
    "deploy.restart_policy": (
        "deploy: {restart_policy: {condition: any, delay: 2s, max_attempts: 4, window: 9s}}",
        lambda s: (
            (s.task.restart.delay, s.task.restart.max_attempts, s.task.restart.window)
            == (2.0, 4, 9.0)
        ),
    ),
    "deploy.endpoint_mode": (
        "deploy: {endpoint_mode: dnsrr}",
        lambda s: s.endpoint_mode == "dnsrr",
    ),
    "ulimits.*": ("ulimits: {core: 5}", lambda s: s.task.ulimits["core"] == Ulimit(soft=5, hard=5)),
}


@pytest.mark.parametrize("key", sorted(IN_THE_BUNDLE))
def test_config_json_carries(key, folder):
    body, carried = IN_THE_BUNDLE[key]
    assert carried(config_of(compiled(folder, body)))
    assert not carried_by_default(carried, folder), "true without the key too: the test is void"


def carried_by_default(carried, folder):
    try:
        return carried(config_of(compiled(folder, "image: i:1")))
    except (KeyError, IndexError):
        return False


@pytest.mark.parametrize("key", sorted(IN_THE_SPEC))
def test_the_spec_carries(key, folder):
    body, carried = IN_THE_SPEC[key]
    assert carried(compiled(folder, body))


def test_every_honoured_key_of_a_service_is_tried():
    honoured = {
        path.removeprefix("services.*.")
        for path, support in SUPPORT.items()
        if support.verdict is KeyVerdict.HONOURED
        and path.count(".") == 2
        and path.startswith("serv")
    }
    assert honoured - IN_THE_BUNDLE.keys() - IN_THE_SPEC.keys() == set()
