"""Broken files: each is refused with its golden messages: every problem, place, caret and hint."""

import time

import pytest

from specs.compose.load import examine
from specs.lint.report import lint
from specs.problems import render
from tests.specs.corpus_files import ROOT, golden

FILES = sorted((ROOT / "broken").glob("*.yaml"))
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def report(file):
    project, problems = examine(
        [file.name], cwd=str(file.parent), environ={"HOME": "/home/me"}, project_name="broken"
    )
    return lint(project, problems).problems


def shown(file, problems):
    lines = file.read_text().splitlines()
    texts = []
    for problem in problems:
        line = None
        if problem.position is not None and problem.position.line <= len(lines):
            line = lines[problem.position.line - 1]
        texts.append(render(problem, line))
    return "\n".join(texts).replace(f"{file.parent}/", "") + "\n"


def test_there_are_enough():
    assert len(FILES) >= 60


@each_file
def test_the_messages_are_the_golden_ones(file):
    began = time.monotonic()
    text = shown(file, report(file))
    assert time.monotonic() - began < 1
    assert text == golden(file.with_suffix(".txt"), text)


@each_file
def test_every_error_says_where_and_what_to_do(file):
    errors = [problem for problem in report(file) if problem.severity == "error"]
    assert errors
    for problem in errors:
        assert problem.position is not None, problem
        assert problem.hint, problem
