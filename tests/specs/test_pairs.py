"""Services that share another one's network: what may be, what may not, and what becomes of it."""

from __future__ import annotations

import pytest

from specs.compile.stack import compile_stack
from specs.problems import SpecError

FILE = """
services:
  web: {{image: 'w:1'{web}}}
  box: {{image: 'b:1', container_name: crate}}
  side:
    image: s:1
{side}
"""


def compiled(folder, side, web=""):
    lines = "".join(f"    {line}\n" for line in side.splitlines())
    project = folder.load(FILE.format(side=lines, web=f", {web}" if web else ""))
    return compile_stack(project.model, {}, "demo")


SHARED = "network_mode: service:web\n"
ONE_EACH = "placement: {max_replicas_per_node: 1}"
AMD = "placement: {constraints: [node.labels.a==1]}"
AMD_TOO = "placement: {constraints: [node.labels.a == 1]}"
FINE = {
    # what the file says of side, and of web -> words of the only warnings
    ("", ""): [],
    ("depends_on: [web]", ""): [],
    ("depends_on: {web: {condition: service_healthy}}", ""): [],
    ("scale: 3", ""): [],
    ("", "scale: 3"): [],
    ("scale: 3", "scale: 2"): [],
    ("", "network_mode: host"): [],
    ("", "network_mode: none"): [],
    ("", "network_mode: 'service:box'"): [],
    ("", "deploy: {mode: global}"): [],
    ("deploy: {mode: global}", "deploy: {mode: global}"): [],
    (f"deploy: {{mode: global, {AMD}}}", f"deploy: {{mode: global, {AMD_TOO}}}"): [],
    (f"deploy: {{replicas: 2, {ONE_EACH}}}", "deploy: {replicas: 2}"): [],
    (f"deploy: {{{ONE_EACH}}}", "deploy: {replicas: 2}"): [],
    (f"deploy: {{replicas: 3, {ONE_EACH}}}", "deploy: {mode: global}"): [],
    ("uts: host", ""): [],
    ("sysctls: {kernel.sem: '1'}", ""): [],
    ("domainname: a.test", ""): ["side.domainname"],
    ("dns_search: a.test", ""): ["side.dns_search"],
    ("dns_opt: ['ndots:1']", ""): ["side.dns_opt"],
}


@pytest.mark.parametrize("case", FINE)
def test_what_a_pair_may_be(folder, case):
    spec, warnings = compiled(folder, SHARED + case[0], case[1])
    side, web = spec.services["side"], spec.services["web"]
    assert (side.task.network_mode, side.task.partner) == ("partner", "web")
    assert side.task.networks == ()
    assert web.task.partner == ("box" if "service:box" in case[1] else "")
    # The order follows from it; ``restart: true`` unless the file says how it depends.
    assert side.depends_on["web"].restart == ("depends_on" not in case[0])
    assert [warning.path.removeprefix("services.") for warning in warnings] == FINE[case]


@pytest.mark.parametrize(
    ("body", "fields", "networks"),
    [
        ("pid: service:web", ("overlay", "partner", "web"), 1),
        (f"{SHARED}pid: service:web", ("partner", "partner", "web"), 0),
        ("pid: service:web\nports: ['80']\nhostname: me", ("overlay", "partner", "web"), 1),
        ("pid: host", ("overlay", "host", ""), 1),
    ],
)
def test_whose_processes_are_shared(folder, body, fields, networks):
    spec, warnings = compiled(folder, body)
    task = spec.services["side"].task
    assert (task.network_mode, task.pid, task.partner) == fields
    assert len(task.networks) == networks
    assert warnings == []
    assert spec.services["side"].depends_on.keys() == ({"web"} if fields[2] else set())


@pytest.mark.parametrize(
    ("web", "said"),
    [("ipc: shareable", "shareable"), ("ipc: host", "host"), ("ipc: 'service:box'", "partner")],
)
def test_whose_memory_is_shared(folder, web, said):
    file = FILE.replace("container_name: crate", "container_name: crate, ipc: shareable")
    lines = "    ipc: service:web\n"
    project = folder.load(file.format(side=lines, web=f", {web}"))
    spec, warnings = compile_stack(project.model, {}, "demo")
    task = spec.services["side"].task
    assert (task.ipc, task.partner, task.lent) == ("partner", "web", "memory")
    assert spec.services["web"].task.ipc == said
    assert warnings == []


REFUSED = {
    # as Docker refuses them of a container in another one's network
    (f"{SHARED}ports: ['80']", "side.ports"): "the network is that of web",
    (f"{SHARED}expose: ['80']", "side.expose"): "the network is that of web",
    (f"{SHARED}hostname: me", "side.hostname"): "the network is that of web",
    (f"{SHARED}dns: 1.1.1.1", "side.dns"): "the network is that of web",
    (f"{SHARED}extra_hosts: ['a=1.2.3.4']", "side.extra_hosts"): "the network is that of web",
    (f"{SHARED}links: [box]", "side.links"): "the network is that of web",
    (f"{SHARED}external_links: [x]", "side.external_links"): "the network is that of web",
    (f"{SHARED}mac_address: '02:00:00:00:00:01'", "side.mac_address"): "that of web",
    (f"{SHARED}sysctls: {{net.core.somaxconn: '9'}}", "side.sysctls"): "that of web",
    # a service has one partner
    (f"{SHARED}pid: service:box", "side.pid"): "network_mode has web as partner",
    ("pid: container:crate", "side.pid"): "names a container",
    ("ipc: container:crate", "side.ipc"): "names a container",
    ("ipc: service:web", "side.ipc"): "web does not lend its memory",
    ("uts: service:web", "side.uts"): "uts: service:web is not available",
    # what has no partner
    ("network_mode: container:crate", "side.network_mode"): "names a container",
    ("network_mode: container:other", "side.network_mode"): "names a container",
    (f"{SHARED}deploy: {{mode: global}}", "side.network_mode"): "to run on every node",
    (f"{SHARED}deploy: {{replicas: 2, {ONE_EACH}}}", "side.network_mode"): (
        "2 of side share the network of one web, so they are on its node"
    ),
    (
        f"{SHARED}depends_on: {{web: {{condition: service_completed_successfully}}}}",
        "side.network_mode",
    ): "has no network any more",
    ("network_mode: other", "side.network_mode"): "network_mode other is not available",
}


@pytest.mark.parametrize(
    ("side", "web"),
    [
        (f"mode: global, {AMD}", "mode: global"),
        ("mode: global", f"mode: global, {AMD}"),
        ("mode: global, placement: {constraints: [node.role==worker]}", f"mode: global, {AMD}"),
    ],
)
def test_two_on_every_node_are_on_the_same_ones(folder, side, web):
    with pytest.raises(SpecError, match="their constraints differ"):
        compiled(folder, f"{SHARED}deploy: {{{side}}}", f"deploy: {{{web}}}")


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_says_where_and_what_to_do(folder, case):
    body, path = case
    with pytest.raises(SpecError) as refused:
        compiled(folder, body)
    (problem,) = [p for p in refused.value.problems if p.severity == "error"]
    assert problem.path.startswith(f"services.{path}")
    assert REFUSED[case] in problem.message
    assert problem.hint


@pytest.mark.parametrize("kind", ["service:web", "container:crate"])
def test_a_host_name_comes_with_a_network_and_a_control_group_with_nobody(folder, kind):
    """Docker takes `uts: host` alone, and Compose's schema `cgroup: host|private`."""
    with pytest.raises(SpecError) as refused:
        compiled(folder, f"uts: {kind}")
    (problem,) = [p for p in refused.value.problems if p.severity == "error"]
    assert problem.hint.endswith(f"with network_mode: {kind} it has that one's host name, too")
    with pytest.raises(SpecError) as refused:
        compiled(folder, f"cgroup: {kind}")
    (problem,) = refused.value.problems
    assert (problem.path, problem.position.line) == ("services.side.cgroup", 7)
    assert problem.hint == "write one of host, private"


def test_the_hint_names_the_service_of_a_container(folder):
    with pytest.raises(SpecError, match=r"service:box"):
        compiled(folder, "network_mode: container:crate")


@pytest.mark.parametrize("key", ["network_mode", "pid", "ipc"])
@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_a_partner_lends_nobody_what_his_level_forbids(folder, key, level):
    """Through one that has no level, and a chain."""
    body = f"{key}: service:web\nx-corral: {{security: {level}}}"
    compiled(folder, body, "ipc: shareable")  # its own
    file = FILE.replace("container_name: crate", f"{key}: host")
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    project = folder.load(file.format(side=lines, web=f", {key}: 'service:box'"))
    with pytest.raises(SpecError) as refused:
        compile_stack(project.model, {}, "demo")
    assert f"{key}: host is not allowed" in str(refused.value)


def test_what_comes_over_the_api_without_a_file_is_checked_too():
    services = {"side": {"image": "s", "network_mode": "service:side"}}
    with pytest.raises(SpecError) as refused:
        compile_stack({"services": services}, {}, "demo")
    assert refused.value.problems[0].path == "services.side.network_mode"


def test_a_partner_that_is_not_asked_for_need_not_be_there():
    """Of ``up --no-deps side`` only side comes here."""
    services = {"side": {"image": "s", "network_mode": "service:web", "ipc": "service:web"}}
    spec, warnings = compile_stack({"services": services}, {}, "demo")
    assert spec.services["side"].task.partner == "web"
    assert warnings == []


@pytest.mark.parametrize("key", ["network_mode", "pid", "ipc"])
def test_a_partner_that_no_file_has_is_refused(folder, key):
    with pytest.raises(SpecError) as refused:
        compiled(folder, f"{key}: service:nope")
    assert "nope" in str(refused.value)
    assert "not defined" in str(refused.value)
