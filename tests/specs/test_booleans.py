"""The yes-or-no settings of ``x-corral``: what they accept, and where the others are refused."""

import jsonschema
import pytest

from specs.compile.booleans import SETTINGS
from specs.compile.json_schema import json_schema
from specs.compile.stack import compile_stack
from specs.problems import SpecError

FILE = """
services:
  db:
    image: db:1
    x-corral: {service}
volumes:
  data:
    x-corral: {volume}
x-corral: {top}
"""
# Each setting: where it is in the file, its line in FILE, and what the spec says of it.
KEYS = {
    "services.db.x-corral.exclusive": (
        ("service", "\n      exclusive: {}", 6),
        lambda spec: spec.services["db"].task.exclusive,
    ),
    "services.db.x-corral.schedule.paused": (
        ("service", "\n      schedule:\n        cron: '@daily'\n        paused: {}", 8),
        lambda spec: spec.services["db"].schedule.paused,
    ),
    "volumes.data.x-corral.per_slot": (
        ("volume", "\n      per_slot: {}", 9),
        lambda spec: spec.volumes["data"].per_slot,
    ),
}
SAID = {
    "true": True,
    "True": True,
    "'true'": True,
    "${EX:-true}": True,
    "'${EX:-true}'": True,
    "false": False,
    "'false'": False,
    "${EX:-false}": False,
}
NEITHER = [
    *('"yes"', "yes", "on", "off", "1", "0", "1.0", "[true]", "[]", "{a: 1}", "{}", "''"),
    *("'True'", "' true'", "null", "${EX:-}", "${EX:-yes}"),
]


def written(**parts):
    return FILE.format(**{"service": "{}", "volume": "{}", "top": "{}", **parts})


def compiled(folder, text):
    project = folder.load(text)
    return compile_stack(project.model, project.origins, "demo")[0]


def test_the_table_has_every_setting():
    listed = {
        ".".join((place.replace("services.*", "services.db").replace("*", "data"), *keys))
        for place, settings in SETTINGS.items()
        for keys in settings
    }
    assert listed == KEYS.keys()


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("key", KEYS)
def test_yes_and_no_are_understood_as_text_too(folder, key, said):
    (part, body, _), read = KEYS[key]
    assert read(compiled(folder, written(**{part: body.format(said)}))) is SAID[said]


@pytest.mark.parametrize("said", NEITHER)
@pytest.mark.parametrize("key", KEYS)
def test_what_is_neither_is_refused_where_it_is_written(folder, key, said):
    (part, body, line), _ = KEYS[key]
    with pytest.raises(SpecError) as caught:
        compiled(folder, written(**{part: body.format(said)}))
    (problem,) = caught.value.problems
    assert (problem.path, problem.hint) == (key, "write true or false")
    assert f":{line}:" in str(problem.position), "file, line and column"


@pytest.mark.parametrize("said", ["5", "[]", "[exclusive]", "'x'", "''", "true", "false", "0"])
@pytest.mark.parametrize(
    ("part", "path", "line"),
    [
        ("service", "services.db.x-corral", 5),
        ("volume", "volumes.data.x-corral", 8),
        ("top", "x-corral", 9),
    ],
)
def test_settings_that_are_no_mapping_are_refused(folder, part, path, line, said):
    with pytest.raises(SpecError) as caught:
        compiled(folder, written(**{part: said}))
    (problem,) = caught.value.problems
    assert problem.path == path
    assert "is no mapping" in problem.message
    assert f":{line}:" in str(problem.position), "file, line and column"


def test_nothing_written_is_nothing_said(folder):
    spec = compiled(folder, written(service="", volume="", top=""))
    assert not spec.services["db"].task.exclusive


@pytest.mark.parametrize(
    ("said", "fits"), [(True, True), ("true", True), ("${EX}", True), ("yes", False), (1, False)]
)
def test_editors_say_the_same(said, fits):
    file = {"services": {"db": {"image": "i", "x-corral": {"exclusive": said}}}}
    assert jsonschema.Draft7Validator(json_schema()).is_valid(file) is fits
