"""The shipped examples: valid by the schema for editors, loading, and without a refusal."""

from pathlib import Path

import jsonschema
import pytest

from specs.compile.json_schema import json_schema
from specs.compose.load import examine
from specs.compose.reading.source import parse
from specs.lint.report import lint

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*/compose.yaml"))


def test_there_are_some():
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_an_example(path):
    check = jsonschema.Draft7Validator(json_schema())
    for document in parse(path.read_bytes(), str(path), None):
        assert [error.message for error in check.iter_errors(document.tree)] == []
    project, problems = examine(cwd=str(path.parent), environ={"HOME": "/home/me"})
    report = lint(project, problems)
    readme = (path.parent / "README.md").read_text()
    findings = [str(p) for p in report.problems if p.severity != "info"]
    assert [finding for finding in findings if finding not in readme] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_what_an_example_shows(path):
    """One screen tells what it is; secrets are files; who starts is healthy first."""
    readme = (path.parent / "README.md").read_text()
    assert len(readme.splitlines()) <= 60
    for words in ("corral up -d", "corral scale ", "corral down", "down -v"):
        assert words in readme
    project, _ = examine(cwd=str(path.parent), environ={"HOME": "/home/me"})
    services = project.model["services"].values()
    assert project.model["volumes"]
    assert any(service.get("depends_on") for service in services) or "global" in readme
    for service in services:
        assert service.get("restart") or service.get("deploy", {}).get("restart_policy")
        for name, value in (service.get("environment") or {}).items():
            assert "PASSWORD" not in name or value.startswith("/run/secrets/"), name


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_what_an_example_is_built_from(path):
    """Everything is there to build; nothing but Debian's packages comes from elsewhere."""
    project, _ = examine(cwd=str(path.parent), environ={"HOME": "/home/me"})
    for service in project.model["services"].values():
        recipe = Path(service["build"]["context"], "Dockerfile").read_text()
        bases = [line.split()[1] for line in recipe.splitlines() if line.startswith("FROM ")]
        stages = {line.split()[3] for line in recipe.splitlines() if " AS " in line}
        assert set(bases) - stages <= {"debian:12-slim", "${BASE}"}
        target = service["build"].get("target")
        assert target is None or target in stages
        for line in recipe.splitlines():
            if line.startswith("COPY "):
                for source in line.split()[1:-1]:
                    assert Path(service["build"]["context"], source).exists(), line
