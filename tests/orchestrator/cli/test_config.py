"""`corral config` and `corral lint`: every flag, offline."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

BASE = """\
name: shop
services:
  web:
    image: nginx:${TAG:-1}
    environment: {A: "$B", BARE: }
    env_file: e.env
    volumes: ["./src:/src"]
    configs: [site]
    secrets: [key]
  job: {image: "job:2", profiles: [extra], networks: [side], user: "${MUST:?say who}"}
networks: {side: }
volumes: {unused: }
configs: {site: {content: "v $TAG"}}
secrets: {key: {environment: SECRET}}
"""


@pytest.fixture
def shop(clean_environment):
    work = clean_environment.work
    (work / "compose.yaml").write_text(BASE)
    (work / "compose.override.yaml").write_text("services: {web: {image: 'nginx:${TAG}-alpine'}}\n")
    (work / "e.env").write_text("FILE=1\n")
    (work / ".env").write_text("TAG=7\nB=b\nMUST=me\n")
    return work


def test_the_model_loads_back(shop, corral):
    shown = corral("config")
    assert shown.code == 0
    (shop / "again.yaml").write_text(shown.out)
    again = corral("-f", "again.yaml", "--env-file", "/dev/null", "config")
    assert again.out == shown.out
    assert json.loads(corral("config", "--format", "json").out)["name"] == "shop"


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        (("--services",), ["web"]),
        (("--images",), ["nginx:7-alpine"]),
        (("--networks",), ["default"]),
        (("--volumes",), []),
        (("--profiles",), ["extra"]),
        (("--models",), []),
    ],
)
def test_lists(shop, corral, flags, lines):
    assert corral("config", *flags).out.splitlines() == lines


def test_all_resources_keeps_what_nobody_uses(shop, corral):
    assert corral("--all-resources", "config", "--volumes").out == "unused\n"
    assert corral("config", "--networks", "job").out == "side\n"
    assert corral("--profile", "*", "config", "--services").out == "job\nweb\n"


def test_variables_and_environment(shop, corral):
    rows = [line.split() for line in corral("config", "--variables").out.splitlines()]
    assert ["MUST", "true"] in rows
    assert ["B", "false"] in rows
    by_name = json.loads(corral("config", "--variables", "--format", "json").out)
    assert by_name["MUST"] == {"name": "MUST", "required": True, "default": "", "alternate": ""}
    assert "TAG=7" in corral("config", "--environment").out.splitlines()


@pytest.mark.parametrize(
    ("flag", "present"),
    [
        ("--no-interpolate", "nginx:${TAG}-alpine"),
        ("--no-path-resolution", "source: ./src"),
        ("--no-env-resolution", "env_file"),
    ],
)
def test_stages_can_be_left_out(shop, corral, flag, present):
    assert present in corral("config", flag).out
    assert present not in corral("config").out


def test_no_normalize_and_no_consistency(shop, corral):
    assert "default" not in corral("config", "--no-normalize").out
    (shop / "compose.yaml").write_text("services: {web: {image: 'x:1', networks: [gone]}}\n")
    (shop / "compose.override.yaml").unlink()
    assert corral("config", "-q").code == 1
    assert corral("config", "-q", "--no-consistency").code == 0


def test_the_hash_covers_configs_and_not_secrets(shop, corral, monkeypatch):
    first = corral("config", "--hash", "*").out
    assert first == corral("config", "--hash", "web").out
    assert len(first.split()[1]) == 64
    monkeypatch.setenv("SECRET", "other")
    assert corral("config", "--hash", "*").out == first
    (shop / "compose.yaml").write_text(BASE.replace('"v $TAG"', '"w $TAG"'))
    changed = corral("config", "--hash", "*").out
    assert changed != first
    (shop / "compose.yaml").write_text(BASE.replace('"v $TAG"', '"w $TAG"') + "x-note: 1\n")
    assert corral("config", "--hash", "*").out == changed
    assert "no such service" in corral("config", "--hash", "nobody").err


def test_explain_a_path(shop, corral, monkeypatch):
    monkeypatch.setenv("TAG", "8")
    lines = corral("config", "--explain", "services.web.image").out.splitlines()
    assert lines[0] == 'services.web.image = "nginx:8-alpine"'
    assert lines[1].startswith("  compose.yaml:4:12  set")
    assert '$TAG = "8" from environment' in lines[2]
    assert lines[3].startswith("  compose.override.yaml:1:25  overridden by a later file")
    assert "e.env:1" in corral("config", "--explain", "services.web.environment.FILE").out
    assert "implied" in corral("config", "--explain", "services.web.networks").out


def test_explain_a_variable(shop, corral, monkeypatch):
    monkeypatch.setenv("TAG", "8")
    text = corral("config", "--explain", "TAG").out
    assert text.startswith('TAG = "8"\n  from environment\n')
    assert "also set at .env:1, which does not count here" in text
    assert "used by services.web.image (compose.override.yaml:1:25)" in text
    wrong = corral("config", "--explain", "services.web.imag")
    assert wrong.code == 1
    assert "did you mean services.web.image?" in wrong.err


def test_the_schema_is_one(shop, corral):
    schema = json.loads(corral("config", "--schema").out)
    jsonschema.Draft7Validator.check_schema(schema)
    check = jsonschema.Draft7Validator(schema)
    service = {"image": "x", "x-corral": {"on_unhealthy": "keep"}}
    assert check.is_valid({"services": {"web": service}, "x-corral": {"deadline": "10m"}})
    assert not check.is_valid({"services": {"web": {"x-corral": {"on_unhealthy": "panic"}}}})
    assert not check.is_valid({"services": {"web": {"helthcheck": {}}}})
    assert check.is_valid({"services": {"web": {"depends_on": {"a": {"condition": "${C}"}}}}})


def test_output_goes_to_a_file(shop, corral, tmp_path):
    assert corral("config", "-o", tmp_path / "out.yaml").out == ""
    assert "nginx:7-alpine" in (tmp_path / "out.yaml").read_text()
    refused = corral("config", "-o", tmp_path / "no" / "out.yaml")
    assert refused.code != 0
    assert "cannot write" in refused.err


def test_digests_need_the_controller(shop, corral):
    refused = corral("config", "--resolve-image-digests")
    assert refused.code == 1
    assert "only the controller knows the digests" in refused.err


def test_digests_come_from_the_running_tasks(monkeypatch):
    from orchestrator.cli.commands.config_questions import images_only, with_digests
    from orchestrator.cli.errors import CliError

    class Controller:
        def get(self, path, **query):
            assert path.endswith("/tasks"), "one question, not one for each container"
            old = {"image": "nginx:7", "image_digest": "sha256:bb", "release": 1}
            return {"tasks": [{**old, "image_digest": "sha256:aa", "release": 2}, old]}

    model = {"name": "shop", "services": {"web": {"image": "nginx:7"}}}
    assert with_digests(model, Controller())["services"]["web"]["image"] == "nginx:7@sha256:aa"
    assert images_only(with_digests(model, Controller())) == {
        "services": {"web": {"image": "nginx:7@sha256:aa"}}
    }
    built = {"build": {"context": "."}}
    found = with_digests({**model, "services": {**model["services"], "own": built}}, Controller())
    assert found["services"]["own"] == built
    assert list(images_only(found)["services"]) == ["web"], (
        "as Compose: what is built is not locked"
    )
    model["services"]["job"] = {"image": "job:2"}
    with pytest.raises(CliError, match="job:2"):
        with_digests(model, Controller())


def test_digests_in_a_list_of_images_and_of_what_is_built_under_a_name(fake, corral):
    Path("compose.yaml").write_text(
        "name: shop\nservices:\n  web: {image: 'nginx:7'}\n  job: {image: 'nginx:7'}\n"
        "  own: {image: 'registry/own:1', build: .}\n  nameless: {build: .}\n"
    )
    row = {"image": "nginx:7", "image_digest": "sha256:aa", "release": 1}
    built = {"image": "registry/own:1", "image_digest": "sha256:cc", "release": 1}
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": [row, built]})
    done = corral("config", "--images", "--resolve-image-digests")
    assert done.out.splitlines() == ["nginx:7@sha256:aa", "registry/own:1", "shop-nameless"]
    done = corral("config", "--lock-image-digests")
    locked = {"image": "nginx:7@sha256:aa"}
    assert yaml.safe_load(done.out) == {"services": {"job": locked, "web": locked}}
    assert "not locked, for the file builds them: nameless, own" in done.err
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": [built]})
    refused = corral("config", "--images", "--resolve-image-digests")
    assert (refused.code, "the digest of nginx:7" in refused.err) == (1, True)


def test_lint_says_everything_at_once(shop, corral):
    (shop / "compose.override.yaml").unlink()
    (shop / "compose.yaml").write_text(
        "services:\n"
        "  web:\n"
        "    image: nginx\n"
        "    helthcheck: {test: x}\n"
        "    depends_on: [db]\n"
        "    gpus: all\n"
        "    environment: {V: 1.10}\n"
    )
    result = corral("lint")
    assert result.code == 1
    for word in (
        "compose.yaml:4:5: error: services.web.helthcheck",
        "did you mean healthcheck?",
        "web depends on db, which is not defined",
        "corral does not run `gpus`",
        "1.10 is read as the number 1.1",
        "names no version",
        "refused: gpus",
        "3 errors, 2 warnings",
    ):
        assert word in result.out
    data = json.loads(corral("lint", "--format", "json").out)
    assert {row["key"]: row["verdict"] for row in data["keys"]}["services.*.gpus"] == "refused"
    assert len(data["problems"]) == 5


def test_lint_strict(shop, corral):
    assert corral("lint").code == 0  # an unused volume is only a warning
    assert corral("lint", "--strict").code == 1
    (shop / "compose.yaml").write_text("services: {web: {image: 'nginx:1'}}\n")
    assert corral("lint", "--strict").code == 0


LINT_RULES = [
    ("image: a", "floating-tag"),
    ("image: a:latest", "floating-tag"),
    ("environment: ['A=\"b\"']", "quotes-in-value"),
    ("environment: ['A= b']", "blank-in-value"),
    ("environment: {A: 0644}", "unquoted-number"),
    ("secrets: [{source: key, mode: 440}]", "decimal-mode"),
    ("command: run && stop", "no-shell"),
    ("entrypoint: [npm start]", "one-word"),
    ("healthcheck: {test: [CMD, curl -f x]}", "one-word"),
    ("depends_on: {db: {condition: service_healthy}}", "no-healthcheck"),
    ("depends_on: {db: {condition: service_completed_successfully}}", "never-completes"),
    ("ports: ['80:80', '127.0.0.1:80:81']", "port-clash"),
    ("mem_limit: 512", "tiny-memory"),
    ("volumes: [/data, /app/node_modules, /app/.next, 'named:/d']", "volume-without-name"),
    ("labels: {a: b}", "unused"),
]


@pytest.mark.parametrize(("body", "code"), LINT_RULES)
def test_each_rule_of_lint(clean_environment, corral, body, code):
    work = clean_environment.work
    image = "" if body.startswith("image") else "    image: a:1\n"
    used = "" if code == "unused" else "    secrets: [key]\n" if "secrets" not in body else ""
    (work / "compose.yaml").write_text(
        f"services:\n  web:\n{image}    {body}\n{used}"
        "  db: {image: 'db:1', restart: always}\nsecrets: {key: {environment: K}}\n"
        + ("volumes: {named: {}}\n" if "named" in body else "")
    )
    data = json.loads(corral("lint", "--format", "json").out)
    assert [problem["code"] for problem in data["problems"]] == [code]
    problem = data["problems"][0]
    assert problem["severity"] == "warning"
    assert problem["position"]
    assert problem["hint"]


@pytest.mark.parametrize(
    ("db", "edge", "severity"),
    [
        ("healthcheck: {disable: true}", "", "error"),
        ("healthcheck: {test: [NONE]}", "", "error"),
        ("healthcheck: {disable: true}", ", required: false", "warning"),
        ("healthcheck: {disable: true}, scale: 0", "", "warning"),
        ("healthcheck: {disable: true}, deploy: {replicas: 0}", "", "warning"),
        ("healthcheck: {interval: 3s}", "", None),  # its image may have one
        ("healthcheck: {test: [CMD, 'true']}", "", None),
        ("restart: always", "", "warning"),
    ],
)
def test_lint_says_who_waits_for_a_health_that_nothing_checks(
    clean_environment, corral, db, edge, severity
):
    (clean_environment.work / "compose.yaml").write_text(
        f"services:\n  db: {{image: 'a:1', {db}}}\n  web:\n    image: b:1\n"
        f"    depends_on: {{db: {{condition: service_healthy{edge}}}}}\n"
    )
    done = corral("lint", "--format", "json")
    found = [p for p in json.loads(done.out)["problems"] if p["code"] == "no-healthcheck"]
    assert [problem["severity"] for problem in found] == ([severity] if severity else [])
    assert done.code == (severity == "error")
    assert all(problem["position"]["line"] == 5 and problem["hint"] for problem in found)


def test_lint_goes_on_behind_what_is_broken(clean_environment, corral):
    (clean_environment.work / "compose.yaml").write_text(
        "services:\n  web:\n    image: x:1\n    imagee: y\n    expose: [foo]\n    gpus: all\n"
        "    ports: [{target: x}]\n    x-corral: {on_unhealty: keep}\nx-corral: {deadlin: 3}\n"
    )
    data = json.loads(corral("lint", "--format", "json").out)
    assert [(problem["path"], problem["severity"]) for problem in data["problems"]] == [
        ("services.web.imagee", "error"),
        ("services.web.expose[0]", "warning"),
        ("services.web.gpus", "error"),
        ("services.web.ports[0].target", "error"),
        ("services.web.x-corral.on_unhealty", "error"),
        ("x-corral.deadlin", "error"),
    ]
    assert not [row for row in data["keys"] if "x-" in row["key"]]


def test_the_line_a_finding_points_at_hides_what_is_secret(tmp_path):
    from orchestrator.cli.findings import source_line
    from specs.problems import Position, Problem

    file = tmp_path / "compose.yaml"
    file.write_text("a: 1\n      DB_PASSWORD: hunter2\n")
    problem = Problem("wrong", position=Position(str(file), 2, 7))
    assert source_line(problem) == "      DB_PASSWORD: ***"


def test_lint_says_where_apparmor_is_missing(shop, corral, monkeypatch):
    from specs.kit import confinement

    for there in (False, True):
        monkeypatch.setattr(confinement, "has_apparmor", lambda there=there: there)
        assert ("no AppArmor in this kernel" in corral("lint").out) is not there
        assert "AppArmor" not in corral("lint", "-q").out
        assert corral("lint").code == 0, "law: it is no finding about the file"
