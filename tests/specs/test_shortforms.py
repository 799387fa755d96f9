"""Short syntax -> the canonical long form, per attribute."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.compose.merging.shortforms import parse_port, parse_volume


def entry(target, published=None, protocol="tcp", ip=None):
    made = {"mode": "ingress", "target": target, "protocol": protocol}
    if published:
        made["published"] = published
    if ip:
        made["host_ip"] = ip
    return made


@pytest.mark.parametrize(
    ("spec", "entries"),
    [
        ("80", [entry(80)]),
        (80, [entry(80)]),
        ("8080:80", [entry(80, "8080")]),
        ("80/UDP", [entry(80, protocol="udp")]),
        ("127.0.0.1:8080:80", [entry(80, "8080", ip="127.0.0.1")]),
        ("127.0.0.1::80", [entry(80, ip="127.0.0.1")]),
        ("[::1]:8080:80/sctp", [entry(80, "8080", "sctp", "::1")]),
        ("80-82", [entry(80), entry(81), entry(82)]),
        ("8080-8081:80-81", [entry(80, "8080"), entry(81, "8081")]),
        ("8080-8090:80", [entry(80, "8080-8090")]),
        ("99-100", [entry(100), entry(99)]),
        (":80", [entry(80)]),
        ("0:80", [entry(80, "0")]),
    ],
)
def test_ports(spec, entries):
    assert parse_port(spec) == entries


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "80:",
        "a:80",
        "80:a",
        "65536",
        "0",
        "80-79",
        "8080-8082:80-81",
        "300.1.1.1:80:80",
        "::1:80:80",
        "80/foo",
        "1:2:3:4",
        "-1",
        "80.5",
        True,
        80.0,
        "\u0668\u0660",
    ],
)
def test_refused_ports(spec):
    with pytest.raises(ValueError, match=r"port|range|address|protocol|lengths"):
        parse_port(spec)


BIND = {"create_host_path": True}


@pytest.mark.parametrize(
    ("spec", "mount"),
    [
        ("/data", {"type": "volume", "target": "/data", "volume": {}}),
        ("db:/data", {"type": "volume", "source": "db", "target": "/data", "volume": {}}),
        ("./a:/b", {"type": "bind", "source": "./a", "target": "/b", "bind": BIND}),
        ("~/a:/b", {"type": "bind", "source": "~/a", "target": "/b", "bind": BIND}),
        (
            "/a:/b:ro",
            {"type": "bind", "source": "/a", "target": "/b", "read_only": True, "bind": BIND},
        ),
        (
            "/a:/b:z,rslave,what",
            {
                "type": "bind",
                "source": "/a",
                "target": "/b",
                "bind": {"selinux": "z", "propagation": "rslave", **BIND},
            },
        ),
        (
            "db:/b:nocopy",
            {"type": "volume", "source": "db", "target": "/b", "volume": {"nocopy": True}},
        ),
        ("C:\\a:/b", {"type": "bind", "source": "C:\\a", "target": "/b", "bind": BIND}),
        ("d:/x", {"type": "volume", "target": "d:/x", "volume": {}}),
        (
            "\\\\.\\pipe\\x:/p",
            {"type": "bind", "source": "\\\\.\\pipe\\x", "target": "/p", "bind": BIND},
        ),
        ("ab", {"type": "volume", "target": "ab"}),
    ],
)
def test_volumes(spec, mount):
    found = parse_volume(spec)
    assert {key: value for key, value in found.items() if value is not False} == mount


@pytest.mark.parametrize("spec", ["", "/a::/b", ":/bb", "db:/a:ro:x", "aa:"])
def test_refused_volumes(spec):
    with pytest.raises(ValueError, match=r"empty|colons"):
        parse_volume(spec)


@given(st.text(alphabet="0123456789:-/[]. abctudp", max_size=16))
def test_no_text_crashes_the_port_parser(text):
    try:
        entries = parse_port(text)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - a sentence for the user
    else:
        assert all(1 <= port["target"] <= 65535 for port in entries)


@given(st.text(alphabet="abCd:./~\\,rozn${}", max_size=16))
def test_no_text_crashes_the_volume_parser(text):
    try:
        mount = parse_volume(text)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - a sentence for the user
    else:
        assert mount["target"]


@pytest.mark.parametrize(
    ("body", "key", "result"),
    [
        ("volumes: ['v1:/a/../b/']", "volumes", None),
        (
            "devices: [/dev/a]",
            "devices",
            [{"source": "/dev/a", "target": "/dev/a", "permissions": "rwm"}],
        ),
        ("devices: ['/a:/b:r']", "devices", [{"source": "/a", "target": "/b", "permissions": "r"}]),
        ("devices: [vendor.com/x=y]", "devices", None),
        ("gpus: all", "gpus", [{"count": -1}]),
        ("gpus: [{driver: d}]", "gpus", [{"driver": "d", "count": -1}]),
        ("gpus: [{device_ids: ['1']}]", "gpus", [{"device_ids": ["1"]}]),
        ("gpus: [{count: '2'}]", "gpus", [{"count": 2}]),
        (
            "environment: [A=1, B, C=, D=x=y]",
            "environment",
            {"A": "1", "B": None, "C": "", "D": "x=y"},
        ),
        (
            "environment: {A: 1, B: 1.50, C: true, D: , E: ''}",
            "environment",
            {"A": "1", "B": "1.5", "C": "true", "D": None, "E": ""},
        ),
        ("labels: [a, b=1]", "labels", {"a": "", "b": "1"}),
        ("labels: {a: , b: 1e6}", "labels", {"a": "", "b": "1e+06"}),
        (
            "extra_hosts: ['a:1.1.1.1', 'b=[::1]', 'b=2']",
            "extra_hosts",
            ["a=1.1.1.1", "b=2", "b=::1"],
        ),
        ("extra_hosts: ['a=1,2']", "extra_hosts", ["a=1", "a=2"]),
        ("command: ''", "command", []),
        ("command: []", "command", []),
        ("command: a 'b c'", "command", ["a", "b c"]),
        ("tmpfs: /t", "tmpfs", ["/t"]),
        ("dns: ['', 1.1.1.1]", "dns", ["1.1.1.1"]),
        ("expose: [80, 90-91/udp]", "expose", ["80", "90-91/udp"]),
        ("group_add: [a, 1]", "group_add", ["a", "1"]),
        ("ulimits: {nofile: 5}", "ulimits", {"nofile": 5}),
        ("ulimits: {nofile: {soft: 0, hard: 5}}", "ulimits", {"nofile": {"hard": 5}}),
        ("ulimits: {NOFILE: '5'}", "ulimits", {"NOFILE": 5}),
        ("mem_limit: 1.5", "mem_limit", None),
        ("mem_limit: -1", "mem_limit", -1),
        ("shm_size: 64m", "shm_size", 64 << 20),
        ("stop_grace_period: 1m30s", "stop_grace_period", "1m30s"),
        ("stop_grace_period: 2d", "stop_grace_period", "48h0m0s"),
        ("healthcheck: {test: x}", "healthcheck", {"test": ["CMD-SHELL", "x"]}),
        (
            "healthcheck: {retries: '3', interval: 0s}",
            "healthcheck",
            {"retries": 3, "interval": "0s"},
        ),
        ("init: false", "init", False),
        ("tty: false", "tty", None),
        ("attach: 'false'", "attach", False),
        ("scale: 0", "scale", 0),
        ("user: 1000x", "user", "1000x"),
        ("cpus: 1.0", "cpus", 1),
        ("cpu_shares: 1.9", "cpu_shares", 1),
        ("storage_opt: {size: 1}", "storage_opt", {"size": "1"}),
        ("sysctls: [a=1]", "sysctls", {"a": "1"}),
        ("logging: {options: {a: 1, b: }}", "logging", {"options": {"a": "1", "b": ""}}),
        (
            "provider: {type: t, options: {a: 1, b: [x, 2]}}",
            "provider",
            {"type": "t", "options": {"a": ["1"], "b": ["x", "2"]}},
        ),
        ("deploy: {}", "deploy", {"resources": {}, "placement": {}}),
        ("deploy: ", "deploy", None),
        (
            "deploy: {update_config: {parallelism: 0, delay: 0s, monitor: 5s}}",
            "deploy",
            {
                "update_config": {"parallelism": 0, "monitor": "5s"},
                "resources": {},
                "placement": {},
            },
        ),
        (
            # Compose leaves it out; here it ends the watching of an update.
            "deploy: {update_config: {monitor: 0s}}",
            "deploy",
            {"update_config": {"monitor": "0s"}, "resources": {}, "placement": {}},
        ),
        (
            "blkio_config: {device_read_bps: [{path: /a, rate: 1m}], weight: 300}",
            "blkio_config",
            {"device_read_bps": [{"path": "/a", "rate": 1 << 20}], "weight": 300},
        ),
        ("post_start: [{command: a b}]", "post_start", [{"command": ["a", "b"]}]),
        ("pre_start: [{}]", "pre_start", [{"command": None, "image": "x"}]),
        ("x-own: {a: [1, {b: null}]}", "x-own", {"a": [1, {"b": None}]}),
    ],
)
def test_attributes(folder, body, key, result):
    web = folder.model(f"services:\n  web:\n    image: x\n    {body}\nvolumes: {{v1: }}\n")[
        "services"
    ]["web"]
    if result is None and key in ("volumes", "devices"):
        assert web[key][0]["target"] in ("/b", "vendor.com/x=y")
    else:
        assert web.get(key) == result


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (".", {"context": ""}),
        ("./d", {"context": "/d"}),
        ("https://x/y.git", {"context": None}),
        ("{args: [A=1, SET, UNSET]}", {"args": {"A": "1", "SET": "s"}}),
        ("{args: {B: 1.50, UNSET: }}", {"args": {"B": "1.5"}}),
        ("{ssh: [default, k=./key]}", {"ssh": {"default": None, "k": "/key"}}),
        (
            "{additional_contexts: [a=./x, b=https://y]}",
            {"additional_contexts": {"a": "/x", "b": "https://y"}},
        ),
        ("{provenance: true, sbom: false}", {"provenance": "true", "sbom": "false"}),
        ("{secrets: [s]}", {"secrets": [{"source": "s"}]}),
        ("{dockerfile_inline: FROM x}", {"dockerfile_inline": "FROM x"}),
        ("{no_cache: 'yes', pull: false}", {"no_cache": True}),
        ("{tags: [a, b]}", {"tags": ["a", "b"]}),
    ],
)
def test_build(folder, body, result):
    text = f"services: {{web: {{build: {body}}}}}\nsecrets: {{s: {{file: f}}}}\n"
    build = folder.model(text, env={"SET": "s"})["services"]["web"]["build"]
    here = str(folder.path)
    for key, value in result.items():
        if key == "context":
            assert build[key] == (here + value if value is not None else "https://x/y.git")
        elif key in ("ssh", "additional_contexts"):
            wanted = {k: here + v if v and v[0] == "/" else v for k, v in value.items()}
            assert build[key] == wanted
        else:
            assert build[key] == value
    assert ("dockerfile" in build) == ("dockerfile_inline" not in build)


@pytest.mark.parametrize(
    ("section", "body", "result"),
    [
        ("networks", "", {"name": "demo_k", "ipam": {}}),
        ("networks", "{external: true}", {"name": "k", "external": True, "ipam": {}}),
        ("networks", "{external: {name: n}}", {"name": "n", "external": True, "ipam": {}}),
        (
            "networks",
            "{internal: 'true', enable_ipv6: false}",
            {"name": "demo_k", "internal": True, "enable_ipv6": False, "ipam": {}},
        ),
        ("volumes", "{name: n, labels: [a]}", {"name": "n", "labels": {"a": ""}}),
        ("volumes", "{driver_opts: {a: 1}}", {"name": "demo_k", "driver_opts": {"a": "1"}}),
        ("secrets", "{environment: E}", {"name": "demo_k", "environment": "E"}),
        ("configs", "{content: 'a $$b'}", {"name": "demo_k", "content": "a $b"}),
        ("configs", "{environment: E}", {"name": "demo_k", "environment": "E"}),
        ("models", "{model: m, context_size: 3}", {"model": "m", "context_size": 3}),
    ],
)
def test_resources(folder, section, body, result):
    text = f"services: {{}}\n{section}:\n  k: {body}\n"
    assert folder.model(text, env={"E": "secret"})[section]["k"] == result


def test_long_mounts_get_their_defaults(folder):
    web = folder.web(
        "volumes:\n- {type: bind, source: a, target: /a/, bind: {}}\n"
        "- {type: bind, source: b, target: /b, bind: {create_host_path: false}}\n"
        "- {type: tmpfs, target: /t, tmpfs: {size: 10m, mode: 0o1777}}\n"
        "secrets: [{source: s, mode: 0400}]\nports: [{target: 80}]",
        no_consistency=True,
    )
    here = str(folder.path)
    assert web["volumes"] == [
        {"type": "bind", "source": f"{here}/a", "target": "/a", "bind": {}},
        {
            "type": "bind",
            "source": f"{here}/b",
            "target": "/b",
            "bind": {"create_host_path": False},
        },
        {"type": "tmpfs", "target": "/t", "tmpfs": {"size": 10 << 20, "mode": 0o1777}},
    ]
    assert web["secrets"] == [{"source": "s", "target": "/run/secrets/s", "mode": "0400"}]
    assert web["ports"] == [{"target": 80, "mode": "ingress", "protocol": "tcp"}]


@pytest.mark.parametrize(
    ("mode", "printed"), [("0440", "0440"), ("0o440", "0440"), ('"0440"', "0440"), ("288", "0440")]
)
def test_file_modes(folder, mode, printed):
    web = folder.web(f"configs: [{{source: c, mode: {mode}}}]", no_consistency=True)
    assert web["configs"][0]["mode"] == printed


def test_watch_shows_its_empty_hook(folder):
    web = folder.web("develop: {watch: [{path: ./p, action: rebuild, ignore: a}]}")
    assert web["develop"]["watch"] == [
        {
            "path": f"{folder.path}/p",
            "action": "rebuild",
            "ignore": ["a"],
            "exec": {"command": None},
        }
    ]
