"""What speaks against a machine, from what it said: every finding with words and a command."""

from __future__ import annotations

import json

import pytest

from orchestrator.nodes.bootstrap import check, install, probe
from orchestrator.nodes.bootstrap.check import Expected, judge

GOOD = """\
system\tLinux
kernel\t6.1.0
arch\tx86_64
hostname\tn2
clock\t1000
libc\tglibc 2.36
os\tdebian
like\t
disk\t99999999
python\t/usr/local/bin/python3 3.11.9 cpython
python\t/usr/bin/python3 3.11.2 cpython
address\tlo 127.0.0.1/8
address\teth0 192.0.2.7/24
route\tdefault via 192.0.2.1 dev eth0
route\t192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.7
route\tlocal 127.0.0.0/8 dev lo table local proto kernel
sshd\tallowstreamlocalforwarding yes
sshd\tauthorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2
""" + "".join(f"tool\t{tool}\n" for tool in probe.TOOLS)
END = "end\tend\n"
EXPECTED = Expected(
    cluster="c-ours", ranges=("10.210.0.0/16",), python="3.11", arch="x86_64", now=1001.0,
    glibc=(2, 28), node_ids=frozenset({"n-1"}), chosen={"172.30.0.0/24": "app_n"},
)  # fmt: skip


def verdict(*changes, expected=EXPECTED, hello=""):
    """Judge the good machine after replacing (old, new) or adding lines."""
    text = GOOD
    for change in changes:
        if isinstance(change, tuple):
            assert change[0] in text, change
            text = text.replace(*change)
        else:
            text += change + "\n"
    machine = probe.read(text + END)
    assert machine is not None
    return judge(machine, expected, hello)


def test_a_good_machine_has_no_findings_and_the_distributions_python_is_taken():
    found = verdict()
    assert (found.errors, found.warnings) == ([], [])
    assert found.python is not None
    assert found.python.path == "/usr/bin/python3"


ERRORS = [
    (("Linux", "Darwin"), "runs Darwin, not Linux", ""),
    (("x86_64", "aarch64"), "is aarch64, the controller x86_64", "architecture"),
    (("glibc 2.36", "glibc 2.17"), "has glibc 2.17", "newer release"),
    (("glibc 2.36", ""), "not glibc", "Debian"),
    (("tool\tconmon\n", ""), "missing on this machine: conmon", "apt-get install -y conmon"),
    (("tool\tnft\n", ""), "missing on this machine: nft", "apt-get install -y nftables"),
    ("cannot\tVXLAN devices: Operation not supported", "cannot do VXLAN devices", ""),
    ("route\t10.0.0.0/8 dev tun0", "routes 10.0.0.0/8 to tun0", "overlaps"),
    ("route\tblackhole 10.210.0.0/16", "routes 10.210.0.0/16", ""),
    ("route\t172.30.0.0/25 dev br7", "routes 172.30.0.0/25 to br7", "another subnet in its file"),
    ("route\tlocal 172.30.0.7 dev eth1", "overlaps 172.30.0.0/24, the subnet of network app_n", ""),
    ("vxlan\t7: flannel.1: <UP> vxlan id 1 dstport 4789", "UDP port 4789: flannel.1", "Swarm"),
    (("forwarding yes", "forwarding no"), "does not forward unix sockets", "AllowStreamLocal"),
    ("sshd\tdisableforwarding yes", "does not forward unix sockets", "DisableForwarding"),
    ("sshd\tallowusers ops", "lets only ops in", "AllowUsers"),
    ("sshd\tallowgroups wheel", "lets only groups wheel in", "AllowGroups"),
    ((".ssh/authorized_keys .ssh/authorized_keys2", "/etc/keys/%u"), "/etc/keys/%u only", ""),
    ("controller\tyes", "runs a controller of its own", "corral controller stop"),
]


@pytest.mark.parametrize(("change", "message", "hint"), ERRORS)
def test_each_defect_is_said(change, message, hint):
    (error,) = verdict(change).errors
    assert message in error.message
    assert hint in error.hint + error.message


def test_all_defects_are_said_at_once():
    found = verdict(("x86_64", "riscv64"), ("tool\tskopeo\n", ""), "route\t10.0.0.0/8 dev tun0")
    assert len(found.errors) == 3


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "it has none"),
        ("python\t/usr/bin/python3 3.9.2 cpython\n", "it has 3.9.2"),
        ("python\t/usr/bin/pypy 3.11.2 pypy\n", "it has 3.11.2"),
        ("python\t/usr/bin/python3 3.11.2 cpython lacks 'ssl'\n", "lacks the standard library's"),
        ("python\tgarbage\n", "it has none"),
    ],
)
def test_a_python_that_does_not_fit(lines, said):
    start, end = GOOD.index("python\t/usr/local"), GOOD.index("address\tlo")
    found = verdict((GOOD[start:end], lines))
    (error,) = found.errors
    assert said in error.message
    assert "python3.11" in error.hint


def test_runc_will_do_where_crun_is_missing():
    assert verdict(("tool\tcrun\n", "")).ok
    (error,) = verdict(("tool\tcrun\n", ""), ("tool\trunc\n", "")).errors
    assert "crun" in error.message


def test_a_missing_tool_is_not_also_a_missing_kernel_feature():
    found = verdict(("tool\tnft\n", ""), "cannot\tnftables NAT: nft: not found")
    assert [error.message for error in found.errors] == ["missing on this machine: nft"]


@pytest.mark.parametrize(
    ("system", "command"),
    [
        (("os\tdebian", "os\tubuntu"), "apt-get install -y iproute2"),
        (("os\tdebian", "os\tfedora"), "dnf install -y iproute"),
        (("os\tdebian\nlike\t", "os\trocky\nlike\trhel centos fedora"), "dnf install -y iproute"),
        (("os\tdebian", "os\tarch"), "pacman -S --noconfirm iproute2"),
        (("os\tdebian", "os\tplan9"), "install there: ip"),
    ],
)
def test_the_command_is_the_distributions_own(system, command):
    (error,) = verdict(system, ("tool\tip\n", "")).errors
    assert command in error.hint


def member(cluster, node):
    return "member\t" + json.dumps({"cluster": cluster, "node": node})


def hello(cluster, node):
    return json.dumps({"node": node, "stamp": {"cluster": cluster, "epoch": 1}})


@pytest.mark.parametrize("running", [False, True])
def test_membership(running):
    def found(cluster, node):
        if running:
            return verdict(hello=hello(cluster, node)).errors
        return verdict(member(cluster, node)).errors

    assert "another cluster (c-theirs)" in found("c-theirs", "n-9")[0].message
    assert "already a node of this cluster (n-1)" in found("c-ours", "n-1")[0].message
    assert found("c-ours", "n-forgotten") == []
    (own,) = verdict(member("c-ours", "n-1"), "controller\tyes").errors
    assert "already a node of this cluster" in own.message
    assert verdict(hello="not json").ok


@pytest.mark.parametrize(
    ("stacks", "cluster", "node", "refused"),
    [
        (
            {"shop": [1, 4], "blog": [1, 9]},
            "c-ours",
            "n-forgotten",
            "runs blog, shop for this cluster",
        ),
        ({}, "c-ours", "n-forgotten", ""),
        (None, "c-ours", "n-forgotten", ""),
        (["shop"], "c-ours", "n-forgotten", ""),
        ({"shop": [1, 4]}, "c-ours", "n-1", "already a node of this cluster"),
        ({"shop": [1, 4]}, "c-theirs", "n-9", "another cluster"),
    ],
)
def test_a_forgotten_node_is_not_emptied_by_the_way(stacks, cluster, node, refused):
    said = json.dumps({**json.loads(hello(cluster, node)), "stacks": stacks})
    errors = verdict(hello=said).errors
    assert len(errors) == bool(refused)
    if refused:
        assert refused in errors[0].message
        assert errors[0].hint


RUNNING = ("running\tt1", "running\tt2")
# agent: how it is there; whose: what its disk says
FORGOTTEN = [
    # agent, whose, what runs, words of the refusal ("" = it may be added)
    ("answers", "c-ours", RUNNING, "runs shop for this cluster"),
    ("answers, has no stack", "c-ours", RUNNING, "runs 2 containers for this cluster, which"),
    ("answers, has no stack", "c-ours", RUNNING[:1], "a container for this cluster"),
    ("answers, has no stack", "c-ours", (), ""),
    ("dead or hung", "c-ours", RUNNING, "2 containers for this cluster, which does not know it"),
    ("dead or hung", "c-ours", RUNNING, "and its agent does not answer; to add it would end those"),
    ("dead or hung", "c-ours", RUNNING[:1], "its agent does not answer; to add it would end that"),
    ("dead or hung", "c-ours", (), ""),
    ("dead or hung", "c-theirs", RUNNING, "another cluster (c-theirs)"),
    ("dead or hung", "c-theirs", (), "another cluster (c-theirs)"),
    ("missing", "", RUNNING, "2 containers for a cluster, and its agent does not answer"),
    ("missing", "", (), ""),
]


@pytest.mark.parametrize(("agent", "whose", "running", "refused"), FORGOTTEN)
def test_what_runs_is_not_ended_by_the_way(agent, whose, running, refused):
    said = ""
    if agent.startswith("answers"):
        stacks = {} if agent.endswith("stack") else {"shop": [1, 4]}
        said = json.dumps({**json.loads(hello(whose, "n-forgotten")), "stacks": stacks})
    disk = (member(whose, "n-forgotten"),) if whose else ()
    errors = verdict(*disk, *running, hello=said).errors
    assert len(errors) == bool(refused)
    if refused:
        assert refused in errors[0].message
        assert errors[0].hint


ROUTES = "route\tblackhole 10.210.0.0/16 proto 98 metric 4096 "


def test_what_an_agent_made_is_no_defect_of_the_machine():
    (only,) = verdict(member("c-theirs", "n-9"), ROUTES).errors
    assert "another cluster" in only.message
    assert verdict(member("c-ours", "n-forgotten"), ROUTES).ok
    assert not verdict("route\tblackhole 10.210.0.0/16 proto static ").ok


def test_an_underlay_address_must_be_the_machines_own():
    asked = Expected(**{**vars(EXPECTED), "underlay": "192.0.2.7"})
    assert verdict(expected=asked).ok
    asked = Expected(**{**vars(EXPECTED), "underlay": "192.0.2.8"})
    (error,) = verdict(expected=asked).errors
    assert "it has 192.0.2.7" in error.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("clock\t1000", "clock\t2000"), "clock is 999 s ahead"),
        (("clock\t1000", "clock\t900"), "clock is 101 s behind"),
        (
            ("disk\t99999999", "disk\t1024"),
            "only 1 MiB are free for /var/lib/corral: no image fits",
        ),
        (("disk\t99999999", "disk\t1048576"), "only 1024 MiB are free for /var/lib/corral: few"),
        (("tool\tbuildah\n", ""), "buildah is missing"),
        ("firewall\tufw", "ufw is active"),
        ("firewall\tfirewalld", "firewalld is active"),
        (
            "nft\ttable ip filter {\nnft\ttype filter hook forward priority 0; policy drop;",
            "table ip filter, hook forward",
        ),
    ],
)
def test_warnings(change, message):
    found = verdict(change)
    assert found.ok
    (warning,) = found.warnings
    assert message in warning.message


def test_our_own_firewall_rules_are_no_warning():
    ours = "nft\ttable inet corral {\nnft\ttype filter hook forward priority 0; policy drop;"
    assert verdict(ours).warnings == []


def test_an_answer_that_broke_off_is_no_machine():
    assert probe.read(GOOD) is None


def test_scripts_mention_only_places_of_ours():
    plan = install.Installation(
        cluster="c", public_key="ssh-ed25519 AAAA corral", bundle="1-x", digest="d" * 64,
        python="/usr/bin/python3", systemd=True,
    )  # fmt: skip
    steps = install.steps(plan, b"archive")
    assert [step.stdin for step in steps][2] == b"archive"
    unit = steps[-1].stdin.decode()
    # By the link, resolved at the start: `corral upgrade` changes what it names.
    assert "readlink -f /opt/corral/current" in unit
    assert 'Environment="CORRAL_UNINSTALL=/opt/corral/uninstall"' in unit
    assert "KillMode=process" in unit
    supervised = install.steps(install.Installation(**{**vars(plan), "systemd": False}), b"")[-1]
    assert supervised.stdin.decode().endswith("# corral")
    line = "supervisor.py /run/corral /var/lib/corral/log /opt/corral/current/python agent"
    assert line in supervised.stdin.decode()


def test_an_upgrade_touches_nothing_that_runs_until_it_changes_over():
    plan = install.Installation(
        cluster="c", public_key="ssh-ed25519 AAAA corral", bundle="2-y", digest="d" * 64,
        python="/usr/bin/python3", systemd=True,
    )  # fmt: skip
    steps = install.shipping(plan, b"archive")
    assert [step.stdin for step in steps][1] == b"archive"
    assert not any("/opt/corral/current" in step.script for step in steps)
    assert not any("systemctl restart corral" in step.script for step in steps)
    change = install.change_over(plan, b"{}")
    assert "PYTHONPATH=/opt/corral/2-y /opt/corral/2-y/python -P -s -m agent.upgrade" in (
        change.script
    )


@pytest.mark.parametrize(
    ("change", "member", "says"),
    [
        (None, "c-ours", ""),
        (("python\t/usr/bin/python3 3.11.2 cpython\n", ""), "c-ours", ""),
        (("libc\tglibc 2.36", "libc\tglibc 2.20"), "c-ours", "glibc 2.20"),
        (("arch\tx86_64", "arch\taarch64"), "c-ours", "this machine is aarch64"),
        (("tool\tconmon\n", ""), "c-ours", "missing on this machine: conmon"),
        (("3.11", "3.12"), "c-ours", "this machine needs Python 3.11"),
        (None, "c-theirs", "a node of another cluster (c-theirs)"),
        (None, "", "no node any more"),
    ],
)
def test_what_speaks_against_another_version_on_a_node(change, member, says):
    text = GOOD.replace(*change) if change else GOOD
    if member:
        text += f'member\t{{"cluster": "{member}", "node": "n-1"}}\n'
    found = check.judge_again(probe.read(text + END), EXPECTED)
    assert [says in error.message for error in found.errors] == [True] * bool(says)


def test_glibc_versions():
    assert check.glibc_version("glibc 2.36") == (2, 36)
    assert check.glibc_version("musl") is None
