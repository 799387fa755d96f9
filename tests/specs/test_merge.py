"""File over file, attribute by attribute; !reset and !override; the laws of merging."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specs.compose.language.schema import PROJECT, SERVICE
from specs.compose.merging.merge import Merge
from specs.compose.merging.unique import enforce_unicity
from specs.compose.reading.tree import Map, Seq, SourceMark, copy, plain
from specs.findings import Findings


def port(target, published, **more):
    return {"mode": "ingress", "target": target, "published": published, "protocol": "tcp", **more}


def both(folder, base, over, **options):
    files = {
        "compose.yaml": f"services:\n  web:\n    image: x\n    {base}\n  db: {{image: y}}\n"
        "volumes: {vol: {}, wol: {}}\nnetworks: {n: {}, m: {}}\nconfigs: {c: {content: c}}\n"
        "secrets: {s: {environment: S}}\nmodels: {g: {model: g}}\n",
        "compose.override.yaml": f"services:\n  web:\n    {over}\n",
    }
    return folder.model(files, **options)["services"]["web"]


@pytest.mark.parametrize(
    ("base", "over", "key", "result"),
    [
        ("hostname: a", "hostname: b", "hostname", "b"),
        ("hostname: a", "hostname: ''", "hostname", None),
        ("labels: {a: 1}", "labels: ", "labels", {"a": "1"}),
        ("command: a b", "command: [c]", "command", ["c"]),
        ("command: a b", "command: ", "command", None),
        ("entrypoint: [a]", "entrypoint: b", "entrypoint", ["b"]),
        ("labels: {a: 1, b: 2}", "labels: [b=3, c]", "labels", {"a": "1", "b": "3", "c": ""}),
        ("environment: [A=1, B]", "environment: {A: 2}", "environment", {"A": "2", "B": None}),
        ("annotations: {a: 1}", "annotations: [a=2]", "annotations", {"a": "2"}),
        ("sysctls: [a=1]", "sysctls: {b: 2}", "sysctls", {"a": "1", "b": "2"}),
        ("cap_add: [A, B]", "cap_add: [C, A]", "cap_add", ["A", "B", "C"]),
        ("dns: 1.1.1.1", "dns: [2.2.2.2, '']", "dns", ["1.1.1.1", "2.2.2.2"]),
        ("dns_search: [a]", "dns_search: b", "dns_search", ["a", "b"]),
        ("tmpfs: /a", "tmpfs: [/b, /a]", "tmpfs", ["/a", "/b"]),
        ("expose: [80]", "expose: ['80', 81]", "expose", ["80", "81"]),
        ("security_opt: [a]", "security_opt: [b]", "security_opt", ["a", "b"]),
        ("extra_hosts: [h=1]", "extra_hosts: {h: 2, i: [3, 4]}", "extra_hosts", None),
        (
            "ports: ['80:80', '81:81']",
            "ports: ['80:80']",
            "ports",
            [port(80, "80"), port(81, "81")],
        ),
        (
            "ports: ['80:80', '81:81']",
            "ports: [{target: 80, published: '80', mode: host}]",
            "ports",
            [port(80, "80") | {"mode": "host"}, port(81, "81")],
        ),
        (
            "ports: ['8080-8081:80-81']",
            "ports: ['8081:81']",
            "ports",
            [port(80, "8080"), port(81, "8081")],
        ),
        ("ulimits: {nofile: {soft: 1, hard: 2}}", "ulimits: {nofile: 3}", "ulimits", {"nofile": 3}),
        (
            "logging: {driver: a, options: {x: 1}}",
            "logging: {options: {y: 2}}",
            "logging",
            {"driver": "a", "options": {"x": "1", "y": "2"}},
        ),
        (
            "logging: {driver: a, options: {x: 1}}",
            "logging: {driver: b}",
            "logging",
            {"driver": "b"},
        ),
        (
            "healthcheck: {test: [CMD, a], interval: 1s}",
            "healthcheck: {test: b}",
            "healthcheck",
            {"interval": "1s", "test": ["CMD-SHELL", "b"]},
        ),
        (
            "depends_on: {db: {condition: service_healthy, restart: true}}",
            "depends_on: [db]",
            "depends_on",
            {"db": {"condition": "service_started", "restart": True, "required": True}},
        ),
        (
            "depends_on: [db]",
            "depends_on: {db: {restart: true}}",
            "depends_on",
            {"db": {"condition": "service_started", "restart": True, "required": True}},
        ),
        (
            "networks: [n]",
            "networks: {n: {aliases: [a]}, m: }",
            "networks",
            {"n": {"aliases": ["a"]}, "m": None},
        ),
        ("models: [g]", "models: {g: {endpoint_var: E}}", "models", {"g": {"endpoint_var": "E"}}),
        ("x-a: {l: [1], m: 1}", "x-a: {l: [2], k: 2}", "x-a", {"l": [1, 2], "m": 1, "k": 2}),
    ],
)
def test_rules(folder, base, over, key, result):
    web = both(folder, base, over)
    if key == "extra_hosts":
        result = ["h=1", "h=2", "i=3", "i=4"]
        web[key] = [*web[key]]
        over_numbers = "extra_hosts: {h: '2', i: ['3', '4']}"
        web = both(folder, base, over_numbers)
    assert web.get(key) == result


def test_extra_hosts_values_must_be_text(folder):
    assert both(folder, "extra_hosts: [h=1]", "extra_hosts: [h=1]")["extra_hosts"] == ["h=1"]


def test_a_string_build_is_its_context(folder):
    web = both(folder, "build: ./ctx", "build: {args: [A=1], target: t}")
    assert web["build"] == {
        "context": f"{folder.path}/ctx",
        "dockerfile": "Dockerfile",
        "args": {"A": "1"},
        "target": "t",
    }


def test_volumes_are_replaced_by_target_in_place(folder):
    web = both(folder, "volumes: [vol:/a, wol:/b]", "volumes: ['./c:/a', /d]")
    assert [(mount.get("source", ""), mount["target"]) for mount in web["volumes"]] == [
        (f"{folder.path}/c", "/a"),
        ("wol", "/b"),
        ("", "/d"),
    ]


def test_secrets_are_replaced_by_target(folder):
    web = both(folder, "secrets: [s]", "secrets: [{source: s, target: /run/secrets/s, mode: 0400}]")
    assert web["secrets"] == [{"source": "s", "target": "/run/secrets/s", "mode": "0400"}]


def test_pools_merge_by_subnet(folder):
    text = "networks: {n: {ipam: {config: [%s]}}}\nservices: {}\n"
    files = {
        "compose.yaml": text % "{subnet: 1.0.0.0/8, gateway: 1.0.0.1}, {subnet: 2.0.0.0/8}",
        "compose.override.yaml": text % "{subnet: 2.0.0.0/8, gateway: 2.0.0.1}",
    }
    project = folder.load(files)
    assert project.model["networks"]["n"]["ipam"]["config"] == [
        {"subnet": "2.0.0.0/8", "gateway": "2.0.0.1"}
    ]
    assert "1.0.0.0/8" in project.warnings[0].message  # Compose drops it; we say so


@pytest.mark.parametrize(
    ("base", "over"),
    [
        ("deploy: {replicas: 1}", "deploy: [a]"),
        ("cap_add: [A]", "cap_add: {A: 1}"),
        ("healthcheck: {test: a}", "healthcheck: b"),
        ("ports: ['80']", "ports: 80"),
    ],
)
def test_a_list_over_a_mapping_is_refused(folder, base, over):
    files = {
        "compose.yaml": f"services: {{web: {{image: x, {base}}}}}\n",
        "compose.override.yaml": f"services: {{web: {{{over}}}}}\n",
    }
    found = folder.refused(files)
    assert found[0].code == "merge-conflict"
    assert "compose.override.yaml" in found[0].position.file


def test_duplicates_where_no_rule_collapses_them_are_refused(folder):
    files = {
        "compose.yaml": "services: {web: {image: x, security_opt: [a]}}\n",
        "compose.override.yaml": "services: {web: {security_opt: [a]}}\n",
    }
    assert folder.refused(files)[0].code == "duplicate-item"


def test_an_override_may_be_partial(folder):
    web = both(folder, "develop: {watch: [{path: ., action: rebuild}]}", "deploy: {replicas: 2}")
    assert web["image"] == "x"
    assert web["deploy"]["replicas"] == 2


@pytest.mark.parametrize(
    ("base", "over", "key", "result"),
    [
        ("ports: ['80:80']", "ports: !reset []", "ports", None),
        ("ports: ['80:80']", "ports: !reset null", "ports", None),
        ("ports: ['80:80']", "ports: !override ['81:81']", "ports", [port(81, "81")]),
        ("labels: {a: 1}", "labels: !override {b: 2}", "labels", {"b": "2"}),
        ("labels: {a: 1, b: 2}", "labels: {a: !reset null}", "labels", {"b": "2"}),
        ("environment: {A: 1}", "environment: {A: !override 2}", "environment", {"A": "2"}),
        ("command: a", "command: !reset null", "command", None),
        ("cap_add: [A]", "cap_add: [B, !reset A]", "cap_add", ["A", "B"]),
        ("hostname: a", "hostname: !override b", "hostname", "b"),
    ],
)
def test_reset_and_override(folder, base, over, key, result):
    assert both(folder, base, over).get(key) == result


# where -> (map form of one entry, list form or None; % = the name)
KEYED = {
    "services.web.environment": ("{%: '1'}", "['%=1']"),
    "services.web.labels": ("{%: '1'}", "['%=1']"),
    "services.web.annotations": ("{%: '1'}", "['%=1']"),
    "services.web.sysctls": ("{%: '1'}", "['%=1']"),
    "services.web.extra_hosts": ("{%: 192.0.2.1}", "['%:192.0.2.1']"),
    "services.web.build.args": ("{%: '1'}", "['%=1']"),
    "services.web.build.labels": ("{%: '1'}", "['%=1']"),
    "services.web.build.additional_contexts": ("{%: /c}", "['%=/c']"),
    "services.web.build.extra_hosts": ("{%: 192.0.2.1}", "['%=192.0.2.1']"),
    "services.web.deploy.labels": ("{%: '1'}", "['%=1']"),
    "services.web.ulimits": ("{%: 1}", None),
    "services.web.depends_on": ("{%: {condition: service_started}}", "[%]"),
    "services.web.networks": ("{%: {aliases: [x]}}", "[%]"),
    "services.web.logging.options": ("{%: '1'}", None),
    "networks.back.labels": ("{%: '1'}", "['%=1']"),
    "networks.back.driver_opts": ("{%: '1'}", None),
    "volumes.data.labels": ("{%: '1'}", "['%=1']"),
    "secrets.hush.labels": ("{%: '1'}", "['%=1']"),
}


def nested(where, value):
    """Return a file with that value at that place, as flow YAML."""
    for key in reversed(where.split(".")):
        value = f"{{{key}: {value}}}"
    return value


BEFORE = (
    "services: {web: {image: x, build: {context: /ctx}}, a: {image: x}, b: {image: x}, "
    "c: {image: x}}\nnetworks: {back: , a: , b: , c: }\nvolumes: {data: }\n"
    "secrets: {hush: {file: /f}}\n"
)
ONCE = ("secrets.hush.labels", "volumes.data.labels")  # twice the same is refused, as in Compose
FORMS = (("map",), ("list",), ("map", "map"), ("map", "list"), ("list", "map"), ("list", "list"))


def tagged(folder, where, forms, tag):
    """Return what is left at a place where a later file tags the key ``a``, and another adds."""
    as_map, as_list = KEYED[where]
    one, two, three = "abc"
    if where.endswith("sysctls"):
        one, two, three = "net.a", "net.b", "net.c"
    files = {"0.yaml": BEFORE}
    for number, form in enumerate(forms, 1):
        value = (as_map if form == "map" else as_list).replace("%", one)
        files[f"{number}.yaml"] = nested(where, value)
    files["7.yaml"] = nested(where, as_map.replace("%", two))
    files["8.yaml"] = nested(where, f"{{{one}: {tag}}}")
    files["9.yaml"] = nested(where, as_map.replace("%", three))
    found = folder.model(files, use=list(files))
    for key in where.split("."):
        found = found[key]
    if isinstance(found, list):
        found = dict(item.split("=") for item in found)
    return {name: value for name, value in found.items() if name != "default"}


@pytest.mark.parametrize("where", sorted(KEYED))
def test_one_key_is_reset_however_many_files_came_before_and_in_which_form(folder, where):
    for forms in FORMS:
        if ("list" in forms and KEYED[where][1] is None) or (where in ONCE and forms != ("map",)):
            continue
        left = tagged(folder, where, forms, "!reset null")
        assert len(left) == 2, (forms, left)
        assert not {"a", "net.a"} & {*left}, forms


@pytest.mark.parametrize("where", [w for w in sorted(KEYED) if KEYED[w][0].endswith("'1'}")])
def test_one_key_is_overridden_in_the_same_way(folder, where):
    forms = ("map",) if where in ONCE else ("map", "list") if KEYED[where][1] else ("map", "map")
    left = tagged(folder, where, forms, "!override x")
    assert left.get("a", left.get("net.a")) == "x"
    assert len(left) == 3


def test_reset_reaches_through_anchors(folder):
    files = {
        "compose.yaml": "services: {web: {image: x, ports: ['80:80'], tty: true}}\n",
        "compose.override.yaml": "x-r: &r {ports: !reset [], tty: !reset false}\n"
        "services: {web: {<<: *r, user: u}}\n",
    }
    web = folder.model(files)["services"]["web"]
    assert "ports" not in web
    assert "tty" not in web
    assert web["user"] == "u"


def test_a_whole_service_can_be_reset(folder):
    files = {
        "compose.yaml": "services: {a: {image: x}, b: {image: x}}\n",
        "compose.override.yaml": "services: {b: !reset null}\n",
    }
    assert list(folder.model(files)["services"]) == ["a"]


# ----- laws

SCALAR = st.one_of(st.integers(0, 3), st.sampled_from(["a", "b=1", "c"]), st.booleans())
KEYS = st.sampled_from(
    ["image", "x-a", "labels", "cap_add", "deploy", "logging", "networks", "depends_on"]
)
TREE = st.recursive(
    SCALAR,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(["a", "b", "driver"]), inner, max_size=3),
        st.lists(inner, max_size=3),
    ),
    max_leaves=6,
)
SERVICES = st.dictionaries(KEYS, TREE, max_size=4)


def marked(value, file="f"):
    if isinstance(value, dict):
        made = Map()
        for key, item in value.items():
            made.put(key, marked(item, file), SourceMark(file, 1, 1))
        return made
    if isinstance(value, list):
        return Seq([marked(item, file) for item in value], [SourceMark(file, 1, 1) for _ in value])
    return value


def merged(base, over):
    findings = Findings()
    result = Merge(findings, "override").services(marked(base), marked(over), "services.web")
    return result, findings


@given(SERVICES)
def test_merging_nothing_changes_nothing(service):
    assert plain(merged(service, {})[0]) == service
    assert plain(merged({}, service)[0]) == service


@given(SERVICES, SERVICES)
def test_keys_are_the_union_and_marks_follow(base, over):
    result, _ = merged(base, over)
    assert set(result) == set(base) | set(over)
    assert set(result.marks) == set(result)


@given(SERVICES, SERVICES)
def test_merging_leaves_the_override_alone(base, over):
    tree = marked(over)
    before = plain(copy(tree))
    Merge(Findings(), "override").services(marked(base), tree, "services.web")
    for key, value in before.items():
        if key not in base:
            assert plain(tree[key]) == value


@given(SERVICES, st.dictionaries(st.just("image"), SCALAR, min_size=1))
def test_the_later_scalar_wins(base, over):
    base = {key: value for key, value in base.items() if key != "image"}
    result, _ = merged({**base, "image": "first"}, over)
    assert result["image"] == over["image"]
    assert result.marks["image"].previous is not None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.dictionaries(st.sampled_from("ABC"), st.sampled_from("12"), max_size=3), max_size=4)
)
def test_environments_merge_like_updates(layers):
    tree = Map({"services": Map({"w": Map()})})
    wanted = {}
    for layer in layers:
        over = marked({"services": {"w": {"environment": layer}}})
        tree = Merge(Findings(), "override").projects(tree, over)
        enforce_unicity(tree, Findings())
        wanted.update(layer)
    found = tree["services"]["w"].get("environment", Map())
    if isinstance(found, Seq):
        found = dict(item.split("=") for item in found)
    assert dict(found) == wanted


def test_every_rule_the_schema_names_is_known():
    rules = set()

    def walk(shape, seen):
        if id(shape) in seen:
            return
        seen.add(id(shape))
        rules.add(shape.merge)
        for inner in (*(shape.fields or {}).values(), shape.values, shape.items):
            if inner is not None:
                walk(inner, seen)

    walk(PROJECT, set())
    walk(SERVICE, set())
    assert rules == {
        "",
        "replace",
        "sequence",
        "hosts",
        "build",
        "depends-on",
        "names",
        "ulimit",
        "logging",
        "ipam",
    }
