"""Realistic stacks: each loads, to exactly its golden model, and back from its own rendering."""

import json

import jsonschema
import pytest

import specs
from specs.compile.json_schema import json_schema
from specs.compose.project.fingerprint import service_hashes
from specs.compose.project.render import render
from specs.compose.reading.source import parse
from specs.lint.report import lint
from specs.problems import SpecError
from tests.specs.corpus_files import STACKS, golden, load_stack, options_of, without_place

SCHEMA = jsonschema.Draft7Validator(json_schema())
each_stack = pytest.mark.parametrize("folder", STACKS, ids=lambda folder: folder.name)


def test_there_are_enough():
    assert len(STACKS) >= 30
    shop = load_stack(next(folder for folder in STACKS if folder.name == "shop"))
    assert len({**shop.model["services"], **shop.disabled}) >= 40


@each_stack
def test_the_model_is_the_golden_one(folder):
    model = load_stack(folder).model
    shown = without_place(json.dumps(model, indent=1, sort_keys=True, ensure_ascii=False), folder)
    assert f"{shown}\n" == golden(folder / "expected.json", f"{shown}\n")


@each_stack
@pytest.mark.parametrize("form", ["yaml", "json"])
def test_the_rendering_loads_back(folder, form, tmp_path):
    project = load_stack(folder)
    text = render(project.model, form)
    (tmp_path / "again.yaml").write_text(text)
    options = {
        **options_of(folder),
        "files": [str(tmp_path / "again.yaml")],
        "project_directory": project.working_dir,
        "project_name": project.name,
        "profiles": ["*"],
        "env_files": [],
        "services": [],
        # an optional dependency on a service that is switched off stays, as in Compose,
        # although its service is not printed
        "no_consistency": bool(project.disabled),
    }
    again = specs.load(**options)
    assert again.model == project.model
    assert render(again.model, form) == text


@each_stack
def test_the_json_schema_takes_the_files(folder):
    for path in folder.rglob("*"):
        if path.suffix in (".yaml", ".json") and path.name not in ("options.json", "expected.json"):
            findings = []
            for document in parse(path.read_bytes(), str(path), findings):
                if not document.cuts:  # what !reset empties may be anything
                    problems = [error.message for error in SCHEMA.iter_errors(document.tree)]
                    assert problems == [], path


@each_stack
def test_lint_knows_every_key_and_never_fails(folder):
    project = load_stack(folder)
    report = lint(project, project.warnings)
    assert report.keys
    for problem in report.problems:
        assert problem.message
        assert problem.hint or problem.severity == "warning", problem


@each_stack
def test_hashes_are_stable(folder):
    def hashes():
        try:
            return service_hashes(load_stack(folder))
        except SpecError as error:
            return str(error)  # a config's file that is not part of the corpus

    assert hashes() == hashes()
