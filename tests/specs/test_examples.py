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
    assert [str(p) for p in report.problems if p.severity == "error"] == []
