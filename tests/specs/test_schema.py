"""What is refused, where, and what is suggested; everything in one go."""

import pytest

from specs.compose.language.schema import PROJECT, SERVICE


def one(folder, body):
    """Return the single problem of a service with this body."""
    found = folder.refused(f"services:\n  web:\n    image: x\n    {body}\n")
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    ("body", "path", "word", "hint"),
    [
        ("helthcheck: {}", "helthcheck", "not known", "did you mean healthcheck?"),
        ("enviroment: {}", "enviroment", "not known", "did you mean environment?"),
        ("replicas: 2", "replicas", "not known", "replicas belongs under deploy:"),
        ("dockerfile: D", "dockerfile", "not known", "dockerfile belongs under build:"),
        ("services: {}", "services", "not known", "services belongs at the top level of the file"),
        ("zzz: 1", "zzz", "not known", "prefix your own keys with x-"),
        ("deploy: {image: x}", "deploy.image", "not known", "image belongs to the service itself"),
        ("ports: '80:80'", "ports", "must be a list", "write it as a list: [80:80]"),
        ("ports: {80: 80}", "ports", None, None),
        ("labels: 3", "labels", "a mapping or a list", ""),
        ("hostname: 3", "hostname", "must be a string, not the number 3", 'quotes around it: "3"'),
        ("user: true", "user", "not the boolean true", 'put quotes around it: "true"'),
        ("image2: y", "image2", "not known", "did you mean image?"),
        ("healthcheck: ", "healthcheck", "not empty", "give healthcheck a value"),
        ("environment: ", "environment", "not empty", "give environment a value"),
        ("restart: [always]", "restart", "must be a string, not a list", ""),
        ("cgroup: privat", "cgroup", "'privat' is not allowed", "did you mean private?"),
        ("pull_policy: sometimes", "pull_policy", "not allowed", "it must match"),
        ("cpu_count: -1", "cpu_count", "at least 0", ""),
        ("cpu_percent: 101", "cpu_percent", "at most 100", ""),
        ("oom_score_adj: 2000", "oom_score_adj", "at most 1000", ""),
        ("cap_add: [A, 1]", "cap_add[1]", "must be a string", 'put quotes around it: "1"'),
        ("group_add: ['1', 1]", "group_add[1]", "already at [0]", "remove one"),
        ("depends_on: {a: {restart: true}}", "depends_on.a", "'condition' is required", ""),
        (
            "depends_on: {web: {condition: service_helthy}}",
            "depends_on.web.condition",
            "not allowed",
            "did you mean service_healthy?",
        ),
        ("volumes: [{source: a, target: /b}]", "volumes[0]", "'type' is required", "add type:"),
        ("volumes: [{type: bnd, target: /b}]", "volumes[0].type", "not allowed", "mean bind?"),
        ("volumes: [{type: volume}]", "volumes[0]", "has no target", "add target:"),
        ("ports: [{published: '80'}]", "ports[0]", "has no target", "the port inside"),
        ("devices: [{source: /dev/a}]", "devices[0]", "has no target", "add target:"),
        ("env_file: [{required: true}]", "env_file[0]", "'path' is required", ""),
        ("ulimits: {nofile: {soft: 1}}", "ulimits.nofile", "'hard' is required", ""),
        ("provider: {}", "provider", "'type' is required", ""),
        ("post_start: [{user: u}]", "post_start[0]", "'command' is required", ""),
        ("storage_opt: {size: 1.5}", "storage_opt", "must be a string", ""),
        ("blkio_config: {weight: '300'}", "blkio_config.weight", "without quotes", ""),
        ("healthcheck: {retries: -1}", "healthcheck.retries", "cannot be negative", ""),
        ("stop_grace_period: '90'", "stop_grace_period", "has no unit", ""),
        ("mem_limit: lots", "mem_limit", "is not a size", ""),
        ("image: 2020-01-01", None, None, None),
    ],
)
def test_refusals(folder, body, path, word, hint):
    if path is None:
        found = folder.refused(f"services:\n  web:\n    {body}\n")
        assert "without quotes is not text" in found[0].message
        return
    if word is None:
        assert folder.refused(f"services:\n  web:\n    image: x\n    {body}\n")
        return
    problem = one(folder, body)
    assert problem.path == f"services.web.{path}"
    assert word in problem.message
    assert hint in problem.hint
    assert problem.position.line == 4


@pytest.mark.parametrize(
    ("text", "path", "word"),
    [
        ("sevices: {}", "sevices", "not known at the top level"),
        ("version: 3\nservices: {}", "version", "must be a string"),
        ("name: 3\nservices: {}", "name", "must be a string"),
        ("services:", "services", "must be a mapping"),
        ("services: [a]", "services", "must be a mapping"),
        ("services: {web: }", "services.web", "must be a mapping, not empty"),
        ("services: {'a b': {image: x}}", "services.a b", "not a valid name"),
        ("volumes:\nservices: {}", "volumes", "must be a mapping"),
        ("volumes: {'a b': {}}\nservices: {}", "volumes.a b", "not a valid name"),
        ("secrets: {s: }\nservices: {}", "secrets.s", "must be a mapping"),
        ("models: {m: {}}\nservices: {}", "models.m", "'model' is required"),
        (
            "networks: {n: {external: {bogus: 1}}}\nservices: {}",
            "networks.n.external.bogus",
            "known",
        ),
        ("networks: {'a b': 1}\nservices: {}", "networks.a b", "must be a mapping"),
    ],
)
def test_top_level_refusals(folder, text, path, word):
    found = folder.refused(text + "\n")
    assert found[0].path == path
    assert word in found[0].message


def test_everything_wrong_is_told_at_once_and_once(folder):
    found = folder.refused(
        """
services:
  web:
    imag: nginx
    ports: "80:80"
    deploy: {replicas: many}
  db:
    image: postgres
    volumes: [data:/data]
    depends_on: [wbe]
  job:
    command: "unclosed 'quote"
    image: x
volume: {}
"""
    )
    assert {(problem.path, problem.position.line) for problem in found} == {
        ("services.web.imag", 4),
        ("services.web.ports", 5),
        ("services.web.deploy.replicas", 6),
        ("services.db.volumes[0]", 9),
        ("services.db.depends_on.wbe", 10),
        ("services.job.command", 12),
        ("volume", 14),
    }


def test_problems_of_several_files_name_their_file(folder):
    found = folder.refused(
        {
            "compose.yaml": "services: {a: {image: x, bogus: 1}}\n",
            "compose.override.yaml": "services: {a: {labels: 3}}\n",
        }
    )
    assert [str(problem.position).rpartition("/")[2] for problem in found] == [
        "compose.yaml:1:26",
        "compose.override.yaml:1:24",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "networks: {'a b': {}}\nservices: {}\n",
        "services: {}\n",
        "x-a: 1\n",
        "name: x\n",
        "networks: {n: }\n",
        "services: {web: {image: x, x-a: {b: [1]}}}\n",
        "services: {web: {image: x, deploy: , develop: , command: , entrypoint: , pid: }}\n",
        "services: {web: {image: x, gpus: [{anything: 1}]}}\n",
        "services: {web: {image: x, pull_policy: every_1d}}\n",
        "services: {web: {image: x, container_name: '-ab'}}\n",
    ],
)
def test_accepted_as_in_compose(folder, text):
    folder.load(text)


def test_version_is_ignored_with_a_warning(folder):
    project = folder.load("version: '3.8'\nservices: {}\n")
    assert "version" not in project.model
    assert project.warnings[0].code == "obsolete"


def test_the_schema_has_every_service_key():
    assert len(SERVICE.fields) == 93
    assert set(PROJECT.fields) == {
        "version",
        "name",
        "include",
        "services",
        "models",
        "networks",
        "volumes",
        "secrets",
        "configs",
    }
