"""Names that mean more where they end: refused by place, and the everyday ones are not."""

from __future__ import annotations

import pytest

from specs import names
from specs.compile.naming import KEYS, VALUES
from specs.compile.stack import compile_stack
from specs.compile.support import SUPPORT
from specs.compose.load import examine
from specs.problems import SpecError

NUL, LINE, ESCAPE, OVERRIDE = "a\0b", "a\nb", "a\x1b[2J", "a\N{RIGHT-TO-LEFT OVERRIDE}b"
THREE = "\N{ARABIC-INDIC DIGIT THREE}"
LONG = "h" * 300
ALWAYS = (NUL, LINE, ESCAPE, OVERRIDE)

# rule -> (what fits, what does not); what never fits anywhere is added
TABLE = {
    "HOSTNAME": (
        ("web", "my_app", "a.example.com", "_x", "h" * 63, "1", "mail.", "a.b."),
        (
            LONG,
            "h" * 65,
            "h" * 64,
            "a b",
            "a..b",
            "-x",
            "x-",
            ".",
            "a..",
            "\u00e9",
            THREE,
            "../x",
            "a;b",
        ),
    ),
    "DNS_NAME": (
        ("db", "tasks.db", "a" * 63, "xn--mller-kva.example"),
        (LONG, "a" * 64, ".".join(["a" * 60] * 5), "a/b", "", "a\tb", "h\u00e4"),
    ),
    "SEARCH": ((".", "example.com", "example.com."), ("..", "a b", "a\noptions rotate")),
    "ADDRESS": (
        ("192.0.2.7", "2001:db8::7", "fe80::1%eth0", "::"),
        ("", "1.2.3", "1.2.3.4/8", f"1.2.3.{THREE}", "fe80::1%a\nnameserver 6.6.6.6", "1.2.3.4 #x"),
    ),
    "IPV4": (("10.0.0.1",), ("::1", "", "10.0.0.1; flush ruleset", "010.0.0.1")),
    "SUBNET": (
        ("10.1.0.0/16", "10.1.0.1/16", "fd00::/8"),
        ("a", "10.0.0.0/33", "10.0.0.0/x", f"10.0.0.0/{THREE}"),
    ),
    "OPTION": (("ndots:2", "use-vc"), ("a b", "#", ":", "o" * 65)),
    "USER": (
        ("root", "1000:1000", "www-data:adm", "DOM\\me", ":5", "2147483647"),
        (
            THREE,
            "\N{SUPERSCRIPT TWO}",
            f"0:{THREE}",
            "a b",
            "a:b:c",
            "a\u2003b",
            "2147483648",
            "9" * 99,
        ),
    ),
    "GROUP": (("docker", "0"), ("a:b", THREE)),
    "WORKING_DIR": (("/", "/a b/\u00e9"), ("a", "", "/proc/self/fd/7", "//proc/1", "/a/../proc")),
    "TARGET": (
        ("/data", "/sys/fs/cgroup", "/proc/cpuinfo", "/processes", "/a b", "/dev/shm"),
        ("/", "/.", "data", "", "/proc", "/proc/sys", "//proc/./sys", "/a/../proc", "/p" * 2048),
    ),
    "FILE_TARGET": (("key", "/etc/x", "a/b"), ("../../proc/sys", "/proc/1/x", "a/../../b")),
    "ANNOTATION": (
        ("com.example.a", "run.ocix", "note"),
        (
            *("run.oci.seccomp.receiver", "run.oci.handler", "run.oci.hooks.stderr", "run.oci."),
            *("org.criu.config", "org.systemd.property.X", "module.wasm.image", ""),
        ),
    ),
    "SYSCTL": (
        ("net.core.somaxconn", "net.ipv4.conf.eth0/1.forwarding", "kernel.msgmax"),
        ("net", "net..x", "net./../kernel", "net.ipv4.a b", "/etc/passwd", ""),
    ),
    "NAME": (("shop_data", "A.b-c", "1"), ("../x", "a/b", ".x", "-x", "", LONG, "a b", THREE)),
    "KEY": (("web", "a.b", "-x"), ("a/b", "web\n", "", "\u00e9", LONG)),
    "STACK": (("shop", "1_a-b"), ("..", "a/b", "Shop", "shop\n", "", "-x", "_x")),
    "LINE": (("a b", "\u00e9", ""), ("\x7f", "\x85", "\u2028", "\ud800")),
    "ENV_NAME": (("A", "a.b-c", "A B"), ("A\nB",)),
    "ACCESS": (("rwm", "r"), ("x", "", "rwmr", "r w")),
    "SIGNAL": (
        ("SIGTERM", "term", "15", "SIGRTMIN+3", "rtmax"),
        ("SIGFOO", "0", "65", "SIGRTMIN+99", "SIGRTMIN+", "SIGTERM+x", "", THREE, "9" * 5000),
    ),
    "CAPABILITY": (("net_admin", "CAP_SYS_TIME", "ALL"), ("ROOT", "CAP_", "", "NET ADMIN")),
    "ULIMIT": (("nofile", "memlock"), ("nofiles", "NOFILE", "")),
    "IMAGE": (("nginx", "localhost:5000/a/b:v1"), ("x@@y", "Nginx", "x:", "a" * 300, "")),
    "TAG": (("app:1.2",), ("x@@y", "app@sha256:" + "a1" * 32)),
    "TOKEN": (("NET_ADMIN", "SIGRTMIN+3", "rshared", "nofile"), ("a b", "", "x" * 33, THREE)),
}


@pytest.mark.parametrize("rule", TABLE)
def test_what_fits_and_what_does_not(rule):
    fault = getattr(names, rule).fault
    fits, refused = TABLE[rule]
    assert {text: fault(text) for text in fits if fault(text)} == {}
    prefix = "/" if rule in ("PATH", "TARGET", "WORKING_DIR") else ""
    for text in (*refused, *(f"{prefix}{text}" for text in ALWAYS)):
        why = fault(text)
        assert why, text
        assert why.isprintable(), text
        assert why.isascii(), text
        assert len(why) < 250, text


def test_every_rule_is_in_the_table_and_says_what_to_write():
    rules = {key: rule for key, rule in vars(names).items() if isinstance(rule, names.NameRule)}
    assert set(rules) - {"PATH"} == set(TABLE)
    assert all(rule.hint for rule in rules.values())


def test_every_place_is_one_of_the_language():
    known = {path.removesuffix("[]") for path in SUPPORT}
    places = {path.removesuffix("[]") for path in (*KEYS, *VALUES)}
    assert {place for place in places if place not in known} == set()


# a line of a service, and where its word is refused
FILE = """\
name: app
services:
  web:
    image: x
    {}
volumes: {{v: {{}}, data: {{}}}}
secrets: {{s: {{file: /a}}}}
"""
PLACES = {
    'hostname: "%s"': ("services.web.hostname", "5:15"),
    'domainname: "%s"': ("services.web.domainname", "5:17"),
    'user: "%s"': ("services.web.user", "5:11"),
    'group_add: ["%s"]': ("services.web.group_add[0]", "5:17"),
    'working_dir: "/%s"': ("services.web.working_dir", "5:18"),
    'dns: [192.0.2.1, "%s"]': ("services.web.dns[1]", "5:22"),
    'dns: "%s"': ("services.web.dns[0]", "5:10"),
    'dns_search: ["%s"]': ("services.web.dns_search[0]", "5:18"),
    'dns_opt: ["%s"]': ("services.web.dns_opt[0]", "5:15"),
    'extra_hosts: ["%s=192.0.2.1"]': ("services.web.extra_hosts", "5:"),
    'extra_hosts: {h: "%s"}': ("services.web.extra_hosts", "5:"),
    'annotations: {"%s": v}': ("services.web.annotations.", "5:"),
    'environment: {"%s": v}': ("services.web.environment.", "5:"),
    'sysctls: {"net.%s": 1}': ("services.web.sysctls.", "5:"),
    'networks: {default: {aliases: ["%s"]}}': ("services.web.networks.default.aliases[0]", "5:36"),
    'networks: {default: {ipv4_address: "%s"}}': (
        *("services.web.networks.default.ipv4_address", "5:40"),
    ),
    'stop_signal: "%s"': ("services.web.stop_signal", "5:18"),
    'tmpfs: ["/%s"]': ("services.web.tmpfs[0]", "5:13"),
    'volumes: [{type: volume, source: v, target: "/%s"}]': ("services.web.volumes[0].target", "5:"),
    'volumes: [{type: bind, source: "/%s", target: /x}]': ("services.web.volumes[0].source", "5:"),
    'secrets: [{source: s, target: "%s"}]': ("services.web.secrets[0].target", "5:"),
    'devices: ["/dev/null:/dev/%s"]': ("services.web.devices[0].target", "5:"),
    'build: {context: ., target: "%s"}': ("services.web.build.target", "5:"),
    'command: [a, "%s"]': ("services.web.command[1]", "5:18"),
    'environment: {A: "%s"}': ("services.web.environment.A", "5:22"),
    'healthcheck: {test: [CMD, "%s"]}': ("services.web.healthcheck.test[1]", "5:"),
    'labels: {a: "%s"}': ("services.web.labels.a", "5:17"),
}


def refusals(text):
    project, found = examine(["-"], stdin=text, environ={}, cwd="/tmp")
    found = [problem for problem in found if problem.severity == "error"]
    if project is not None and not found:
        with pytest.raises(SpecError) as caught:
            compile_stack(project.model, project.origins, project.name)
        found = [problem for problem in caught.value.problems if problem.severity == "error"]
    return found


@pytest.mark.parametrize("line", PLACES)
def test_a_name_with_a_nul_is_refused_at_its_place(line):
    path, place = PLACES[line]
    (problem,) = refusals(FILE.format(line.replace("%s", r"a\0b")))
    assert problem.path.startswith(path)
    assert str(problem.position).startswith(f"-:{place}")
    assert problem.hint
    assert str(problem).replace("\n", "").isprintable(), "a terminal obeys nothing of it"


# what stands at the top, and what is said
TOPS = {
    'networks: {"../x": {}}': "'../x' is not a valid name",
    'networks: {default: {name: "../x"}}': "networks.default.name: '../x' is not a valid name",
    'networks: {default: {ipam: {config: [{subnet: "10.0.0.0/x"}]}}}': "is not a subnet",
    'volumes: {v: {name: "../x"}}': "volumes.v.name: '../x' is not a valid name",
    'secrets: {s: {name: "a/b", file: /a}}': "secrets.s.name: 'a/b' is not a valid name",
    'configs: {c: {name: "a\\nb", content: x}}': "configs.c.name: 'a\\nb' is not a valid name",
}


@pytest.mark.parametrize("line", TOPS)
def test_a_name_at_the_top_is_refused_once(line):
    (problem,) = refusals(f"name: app\nservices: {{web: {{image: x}}}}\n{line}\n")
    assert TOPS[line] in str(problem)
    assert str(problem.position).startswith("-:3:")


@pytest.mark.parametrize("stack", ["..", "a/b", "a\nb", "", "a" * 256])
def test_a_stack_is_named_in_the_api_too(stack):
    with pytest.raises(SpecError, match=r"is not a project name|is longer than"):
        compile_stack({"services": {"web": {"image": "x"}}}, {}, stack)


def test_a_dot_that_an_empty_variable_leaves_is_no_part_of_a_host_name():
    project, _ = examine(
        ["-"], stdin=FILE.format("hostname: mail.${DOMAIN:-}"), environ={}, cwd="/tmp"
    )
    spec, _ = compile_stack(project.model, project.origins, project.name)
    assert spec.services["web"].task.hostname == "mail"


def test_everyday_files_are_as_they_were():
    text = FILE.format("""\
hostname: my_app.example.com
    user: "1000:www-data"
    dns: [1.1.1.1, "2606:4700::1111"]
    dns_search: [example.com, .]
    dns_opt: [ndots:2]
    extra_hosts: ["host.docker.internal:host-gateway", "six=[::1]"]
    annotations: {com.example.note: "two\\nlines"}
    environment: {TEXT: "one\\ntwo\\t\\e[0m"}
    command: [printf, "\\e[31m"]
    tmpfs: ["/run:size=1m"]
    volumes: [/proc:/host/proc:ro, /sys:/sys:ro, "data:/data dir", ./p:/proc/cpuinfo]
    devices: [/dev/null]
    ports: ["127.0.0.1:8080:80"]
    ulimits: {nofile: 10}
    cap_add: [net_admin, ALL]
    stop_signal: SIGRTMIN+3""")
    project, found = examine(["-"], stdin=text, environ={}, cwd="/tmp")
    assert [problem for problem in found if problem.severity == "error"] == []
    spec, _ = compile_stack(project.model, project.origins, project.name)
    assert spec.services["web"].task.hostname == "my_app.example.com"
