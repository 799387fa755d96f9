"""What a stack can have at most, and texts that are none: refused when the file is read."""

from __future__ import annotations

import pytest

from specs.bounds import MOST_PORTS, MOST_TASKS
from specs.compile.stack import compile_stack
from specs.compose.load import examine
from specs.compose.project.content import read_contents
from specs.problems import SpecError


def errors(services, **more):
    named = {name: {"image": "i", **service} for name, service in services.items()}
    try:
        compile_stack({"services": named, **more}, {}, "app")
    except SpecError as refused:
        return [(p.path, p.message) for p in refused.problems if p.severity == "error"]
    return []


def published(count, first=1):
    return [{"target": first + n, "published": str(first + n)} for n in range(count)]


@pytest.mark.parametrize(
    ("services", "place"),
    [
        ({"a": {"deploy": {"replicas": MOST_TASKS}}}, ""),
        ({"a": {"deploy": {"replicas": MOST_TASKS + 1}}}, "services.a.deploy.replicas"),
        ({"a": {"deploy": {"replicas": 100_000}}}, "services.a.deploy.replicas"),
        ({"a": {"deploy": {"replicas": 10**30}}}, "services.a.deploy.replicas"),
        ({"a": {"scale": 10**6}}, "services.a.scale"),
        ({"a": {"scale": MOST_TASKS}, "b": {}}, "services.b.deploy.replicas"),
        ({"a": {"deploy": {"mode": "global"}}}, ""),
        ({"a": {"ports": published(MOST_PORTS)}}, ""),
        ({"a": {"ports": published(MOST_PORTS + 1)}}, "services.a.ports"),
        ({"a": {"ports": published(MOST_PORTS)}, "b": {"ports": published(1, 5000)}}, "services.b"),
    ],
)
def test_more_than_the_controller_can_look_after_is_refused(services, place):
    found = errors(services)
    assert len(found) == bool(place)
    assert "".join(path for path, _ in found).startswith(place)
    assert not found or "a stack can have" in found[0][1]


@pytest.mark.parametrize("length", [254, 255, 256, 300])
def test_a_volumes_name_is_a_name_on_a_node(length):
    found = errors({}, volumes={"v": {"name": "v" * length}})
    assert bool(found) == (length > 255)
    assert all(path == "volumes.v.name" and "(255)" in message for path, message in found)


FILES = {
    "env_file": "services: {a: {image: x, env_file: odd}}",
    "env_file raw": "services: {a: {image: x, env_file: [{path: odd, format: raw}]}}",
    "label_file": "services: {a: {image: x, label_file: odd}}",
    "--env-file": "services: {a: {image: x}}",
    ".env": "services: {a: {image: x}}",
}


@pytest.mark.parametrize("place", FILES)
def test_a_text_that_is_not_utf8_is_refused_by_its_line(tmp_path, place):
    (tmp_path / "c.yaml").write_text(FILES[place])
    odd = tmp_path / (".env" if place == ".env" else "odd")
    odd.write_bytes(b"B=1\nA=\xff\xfe\n")
    options = {"env_files": ["odd"]} if place == "--env-file" else {}
    _, problems = examine(files=["c.yaml"], cwd=str(tmp_path), environ={}, **options)
    (error,) = [p for p in problems if p.severity == "error"]
    assert "not UTF-8 text: byte 0xff" in error.message
    assert error.position is not None
    assert (error.position.file, error.position.line) == (str(odd), 2)


def test_bytes_of_the_environment_are_refused_where_they_are_used(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "services: {a: {image: x, command: ['${A}'], secrets: [s]}}\n"
        "secrets: {s: {environment: A}}\n"
    )
    project, problems = examine(files=["c.yaml"], cwd=str(tmp_path), environ={"A": "\udcff"})
    assert [p.path for p in problems if p.severity == "error"] == ["services.a.command[0]"]
    assert read_contents(project)["secrets.s"] == b"\xff"  # a secret is bytes


@pytest.mark.parametrize("content", ['""', '"${UNSET}"', "''", '"${UNSET:-}"'])
def test_an_empty_config_is_one(tmp_path, content):
    (tmp_path / "c.yaml").write_text(
        f"services: {{a: {{image: x, configs: [c]}}}}\nconfigs: {{c: {{content: {content}}}}}\n"
    )
    project, problems = examine(files=["c.yaml"], cwd=str(tmp_path), environ={})
    assert not [p for p in problems if p.severity == "error"]
    assert read_contents(project) == {"configs.c": b""}
