"""The OCI bundle: a golden file for the default, a table for every key that changes it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import Refusal
from agent.runtime import bundle, seccomp
from agent.runtime.bundle import Inputs, NodeDevice, NodeTraits, User
from agent.vocabulary import BoundMount, ImageConfig
from specs.kernel import DEFAULT_CAPABILITIES
from specs.stack import Limits, Reservations, Resources, TaskSpec, Ulimit
from specs.states import Desired
from specs.wire import Assignment

HOST = NodeTraits(runtime="runc", init="/usr/bin/tini-static")
IMAGE = ImageConfig(
    digest="sha256:0",
    entrypoint=("/entry",),
    command=("serve",),
    environment={"PATH": "/usr/bin:/bin", "MODE": "image"},
    working_dir="/srv",
)
GOLDEN = Path(__file__).parent / "golden" / "default.json"


def build(spec=None, host=HOST, **keys):
    options = {
        name: keys.pop(name) for name in ("mounts", "devices", "user", "netns") if name in keys
    }
    inputs = Inputs(
        assignment=Assignment(
            id="t1",
            stack="s",
            service="web",
            slot=1,
            name="s-web-1",
            spec=spec or TaskSpec(image="i", **keys),
            desired=Desired.RUNNING,
        ),
        image=IMAGE,
        root="/root/t1",
        user=User(),
        netns="/run/netns/t1",
        hostname="s-web-1",
        etc={"/etc/hosts": "/state/t1/etc/hosts"},
    )
    return bundle.build(replace(inputs, **options), host)


def test_default_is_the_golden_file(request):
    config = build().config
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    if not GOLDEN.exists():
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
        pytest.fail("the golden file was made: look at it and commit it")
    assert config == json.loads(GOLDEN.read_text())


def test_docker_capabilities():
    caps = build().config["process"]["capabilities"]
    bits = sum(1 << bundle.ALL_CAPABILITIES.index(name) for name in caps["effective"])
    assert f"{bits:016x}" == "00000000a80425fb"
    assert caps["inheritable"] == caps["ambient"] == []


@pytest.mark.parametrize(
    ("spec", "args"),
    [
        ({}, ["/entry", "serve"]),
        ({"command": ("other",)}, ["/entry", "other"]),
        ({"command": ()}, ["/entry"]),
        ({"entrypoint": ("/mine",)}, ["/mine"]),
        ({"entrypoint": ("/mine",), "command": ("x",)}, ["/mine", "x"]),
        ({"entrypoint": (), "command": ("x",)}, ["x"]),
        ({"entrypoint": ("",), "command": ("x", "")}, ["x", ""]),  # none, as with Docker
        ({"command": ("",)}, ["/entry", ""]),
        ({"init": True}, ["/dev/.corral-init", "--", "/entry", "serve"]),
    ],
)
def test_command_line(spec, args):
    assert build(**spec).config["process"]["args"] == args


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"entrypoint": (), "command": ("",)}, "the first word of the command of image i is empty"),
        ({"entrypoint": ("",), "command": ()}, "neither entrypoint nor command"),
        ({"command": ("x" * 131_072,)}, "longer than the 131072 bytes"),
        ({"environment": {"A": "x" * 131_070}}, "longer than the 131072 bytes"),
        ({"environment": {f"V{n}": "x" * 100_000 for n in range(30)}}, "gives a process 2097152"),
    ],
)
def test_what_no_process_can_be_started_with_is_refused_in_words(spec, words):
    with pytest.raises(Refusal, match=words):
        build(**spec)


def test_a_process_with_a_larger_stack_takes_more():
    large = {f"V{n}": "x" * 100_000 for n in range(30)}
    build(environment=large, ulimits={"stack": Ulimit(soft=-1, hard=-1)})
    build(environment={"A": "x" * 131_069})


def test_environment_order_and_defaults():
    env = dict(
        one.split("=", 1)
        for one in build(environment={"MODE": "mine"}, user=User(home="/home/x")).config["process"][
            "env"
        ]
    )
    assert env == {
        "PATH": "/usr/bin:/bin",
        "HOSTNAME": "s-web-1",
        "MODE": "mine",
        "HOME": "/home/x",
    }
    assert "TERM=xterm" in build(tty=True).config["process"]["env"]


@pytest.mark.parametrize(
    ("keys", "present", "absent"),
    [
        ({"cap_add": ("NET_ADMIN",)}, {"CAP_NET_ADMIN", "CAP_CHOWN"}, {"CAP_SYS_ADMIN"}),
        ({"cap_add": ("cap_sys_time",)}, {"CAP_SYS_TIME"}, set()),
        ({"cap_drop": ("NET_RAW",)}, {"CAP_CHOWN"}, {"CAP_NET_RAW"}),
        ({"cap_drop": ("ALL",)}, set(), {"CAP_CHOWN", "CAP_KILL"}),
        ({"cap_drop": ("ALL",), "cap_add": ("KILL",)}, {"CAP_KILL"}, {"CAP_CHOWN"}),
        ({"cap_add": ("ALL",)}, set(bundle.ALL_CAPABILITIES), set()),
        ({"cap_add": ("ALL",), "cap_drop": ("SYS_ADMIN",)}, {"CAP_BPF"}, {"CAP_SYS_ADMIN"}),
        ({"privileged": True}, set(bundle.ALL_CAPABILITIES), set()),
    ],
)
def test_capabilities(keys, present, absent):
    names = set(build(**keys).config["process"]["capabilities"]["bounding"])
    assert names >= present
    assert not names & absent


def test_a_user_who_is_not_root_has_nothing_effective():
    process = build(user=User(1000, 1000, (10,))).config["process"]
    assert process["user"] == {"uid": 1000, "gid": 1000, "additionalGids": [10]}
    assert process["capabilities"]["effective"] == []
    assert process["capabilities"]["bounding"]


def test_privileged():
    config = build(privileged=True).config
    assert "seccomp" not in config["linux"]
    assert "maskedPaths" not in config["linux"]
    assert config["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert all("ro" not in m["options"] for m in config["mounts"] if m["destination"] == "/sys")


def test_dev_is_always_a_tmpfs_and_mounts_keep_their_order():
    mounts = build(
        mounts=[
            BoundMount("/vol/a", "/data"),
            BoundMount("tmpfs", "/dev/shm", "tmpfs", ("size=1m",)),
        ]
    ).config["mounts"]
    places = [mount["destination"] for mount in mounts]
    assert next(m for m in mounts if m["destination"] == "/dev")["type"] == "tmpfs"
    assert places.count("/dev/shm") == 1
    assert places[-1] == "/dev/shm"
    assert places.index("/dev") < places.index("/data")


def test_resources():
    limits = Resources(
        limits=Limits(cpus=1.5, memory=1 << 26, pids=99), reservations=Reservations(memory=1 << 25)
    )
    resources = build(resources=limits).config["linux"]["resources"]
    assert resources["memory"] == {"limit": 1 << 26, "reservation": 1 << 25}
    assert resources["cpu"] == {"quota": 150_000, "period": 100_000}
    assert resources["pids"] == {"limit": 99}
    assert set(build().config["linux"]["resources"]) == {"devices"}


def test_network_namespaces():
    def network(config):
        return [n for n in config["linux"]["namespaces"] if n["type"] == "network"]

    assert network(build().config) == [{"type": "network", "path": "/run/netns/t1"}]
    assert network(build(netns=None).config) == []
    assert network(build(netns="").config) == [{"type": "network"}]


LOW_PORTS, PING = "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"
OPEN = {LOW_PORTS: "0", PING: "0 2147483647"}


# Docker sets both in every network namespace of a container's own, and what the file says wins.
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, OPEN),
        ({"netns": ""}, OPEN),
        ({"network_mode": "none"}, OPEN),
        ({"privileged": True}, OPEN),
        ({"cap_drop": ("ALL",)}, OPEN),
        ({"user": User(1000, 1000)}, OPEN),
        ({"sysctls": {"net.core.somaxconn": "9"}}, {**OPEN, "net.core.somaxconn": "9"}),
        ({"sysctls": {LOW_PORTS: "1024"}}, {**OPEN, LOW_PORTS: "1024"}),
        ({"sysctls": {PING: "1 0"}}, {**OPEN, PING: "1 0"}),
        ({"sysctls": {PING: "1 0", LOW_PORTS: "80"}}, {PING: "1 0", LOW_PORTS: "80"}),
        ({"host": replace(HOST, all_groups=False)}, {LOW_PORTS: "0"}),
        ({"netns": None}, None),  # network_mode: host; it would change the node
        ({"netns": None, "sysctls": {"kernel.sem": "1"}}, {"kernel.sem": "1"}),
    ],
)
def test_low_ports_and_ping_need_no_root(keys, expected):
    assert build(**keys).config["linux"].get("sysctl") == expected


def test_what_the_node_cannot_grant_is_clamped_and_told():
    poor = replace(
        HOST,
        grantable=frozenset(bundle.ALL_CAPABILITIES) - {"CAP_SYS_RESOURCE"},
        rlimits={"nofile": 1024},
    )
    made = build(
        host=poor, privileged=True, oom_score_adj=-5, ulimits={"nofile": Ulimit(soft=-1, hard=-1)}
    )
    assert len(made.warnings) == 3
    assert made.config["process"]["oomScoreAdj"] == 0
    assert made.config["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}
    ]
    with pytest.raises(Refusal, match="cannot grant CAP_SYS_RESOURCE"):
        build(host=poor, cap_add=("SYS_RESOURCE",))


def test_devices_are_made_and_allowed():
    device = NodeDevice("/dev/fuse", "c", 10, 229, access="rw")
    linux = build(devices=[device]).config["linux"]
    assert linux["devices"][0]["path"] == "/dev/fuse"
    assert linux["resources"]["devices"][-1] == {
        "allow": True,
        "type": "c",
        "major": 10,
        "minor": 229,
        "access": "rw",
    }


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"cap_add": ("NOPE",)}, "capability 'NOPE' does not exist"),
        ({"ulimits": {"what": Ulimit(soft=1, hard=1)}}, "ulimit 'what'"),
        ({"sysctls": {"kernel.panic": "1"}}, "whole node"),
        ({"working_dir": "relative"}, "not an absolute path"),
        ({"mounts": [BoundMount("/x", "/proc")]}, "nothing can be mounted at /proc"),
        ({"entrypoint": (), "command": ()}, "neither entrypoint nor command"),
        ({"init": True, "host": replace(HOST, init=None)}, "tini"),
        ({"sysctls": {"net.core.somaxconn": "1"}, "netns": None}, "uses its network"),
    ],
)
def test_refusals_explain_themselves(keys, words):
    with pytest.raises(Refusal, match=words):
        build(**keys)


def test_seccomp_verdicts():
    """reliability M4 and M5: unknown calls answer ENOSYS, known-bad ones EPERM."""
    rules = seccomp.profile(DEFAULT_CAPABILITIES)["syscalls"]

    def verdict(name):
        found = [r for r in rules if name in r["names"]]
        return {(r["action"], r.get("errnoRet", 0)) for r in found if not r.get("args")}

    allow, eperm, enosys = ("SCMP_ACT_ALLOW", 0), ("SCMP_ACT_ERRNO", 1), ("SCMP_ACT_ERRNO", 38)
    for name in ("read", "openat", "futex", "mseal", "chroot", "statx"):
        assert verdict(name) == {allow}, name
    for name in (
        "unshare",
        "mount",
        "keyctl",
        "add_key",
        "io_uring_setup",
        "bpf",
        "userfaultfd",
        "perf_event_open",
        "open_by_handle_at",
        "setns",
        "reboot",
        "init_module",
        "kexec_load",
    ):
        assert verdict(name) == {eperm}, name
    assert verdict("clone3") == {enosys}
    assert seccomp.profile(frozenset())["defaultErrnoRet"] == 38
    admin = seccomp.profile(DEFAULT_CAPABILITIES | {"CAP_SYS_ADMIN"})["syscalls"]
    assert any("unshare" in r["names"] and r["action"] == "SCMP_ACT_ALLOW" for r in admin)
    names = [n for r in rules for n in r["names"] if not r.get("args")]
    assert len(names) == len(set(names)), "a call has one verdict"


BASELINE = DEFAULT_CAPABILITIES - {"CAP_MKNOD", "CAP_NET_RAW", "CAP_AUDIT_WRITE"}


@pytest.mark.parametrize(
    ("level", "options", "granted"),
    [
        ("default", {}, DEFAULT_CAPABILITIES),
        ("baseline", {}, BASELINE),
        ("baseline", {"cap_add": ("MKNOD",)}, BASELINE | {"CAP_MKNOD"}),
        ("baseline", {"cap_drop": ("KILL",)}, BASELINE - {"CAP_KILL"}),
        ("restricted", {}, frozenset()),
        ("restricted", {"cap_add": ("NET_BIND_SERVICE",)}, {"CAP_NET_BIND_SERVICE"}),
    ],
)
def test_each_level_grants_what_it_says(level, options, granted):
    config = build(security=level, user=User(uid=7), **options).config
    assert set(config["process"]["capabilities"]["bounding"]) == granted


@pytest.mark.parametrize("level", ["default", "baseline", "restricted"])
@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_above_the_default_level_32_bit_programs_have_no_socketcall(level, runtime):
    config = build(security=level, user=User(uid=7), host=replace(HOST, runtime=runtime)).config
    rules = config["linux"]["seccomp"]["syscalls"]
    named = any("socketcall" in rule["names"] for rule in rules)
    assert named == (level == "default"), "what no rule allows is not allowed"
    assert ("/sys/fs/selinux" in config["linux"]["maskedPaths"]) == (level != "default")
    plain = build(user=User(uid=7), host=replace(HOST, runtime=runtime)).config
    key = "run.oci.seccomp_bpf_data"
    same = config["annotations"].get(key) == plain["annotations"].get(key)
    assert same == (level == "default" or runtime == "runc"), "the program is the level's"


def test_an_image_that_runs_as_root_is_refused_where_that_is_not_allowed():
    with pytest.raises(Refusal, match=r"runs as root.*restricted.*set user:"):
        build(security="restricted", user=User(uid=0))
    build(security="baseline", user=User(uid=0))


def test_the_filter_can_be_switched_off_and_no_new_privileges_on():
    config = build(seccomp="unconfined", no_new_privileges=True).config
    assert "seccomp" not in config["linux"]
    assert config["process"]["noNewPrivileges"] is True


def test_crun_gets_the_compiled_program():
    config = build(host=replace(HOST, runtime="crun")).config
    if seccomp.compiled(DEFAULT_CAPABILITIES, "amd64") is None:
        pytest.skip("libseccomp is not installed")
    assert config["annotations"]["run.oci.seccomp_bpf_data"]
    assert config["linux"]["seccomp"]["syscalls"], "the JSON form stays for other runtimes"
