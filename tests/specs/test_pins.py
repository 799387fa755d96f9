"""What keeps a service on one node, as `lint` and `up` say it."""

from __future__ import annotations

import pytest

from specs.lint.report import lint
from specs.pins import sentence

CASES = {
    "volumes: ['data:/d']": ("volume demo_data",),
    "volumes: ['data:/d', 'data:/e', '/srv/x:/x']": (
        "volume demo_data",
        "path /srv/x, unless every node has it",
    ),
    "volumes: ['/srv/x:/x:ro', '/var/run/docker.sock:/s', /anonymous]": (),
    "volumes: ['/srv/x:/x']\ndeploy: {mode: global}": (),
    "volumes: ['data:/d']\ndeploy: {mode: global}": (),
    "volumes: ['each:/d']": (),
    "volumes: ['there:/d']": (),
    "volumes: ['./html:/x:ro']": ("path WORK/html of the machine with the file",),
    "volumes: ['/srv/{{.Node.Hostname}}:/x', '/srv/{{.Task.Slot}}:/y']": (),
    "tmpfs: /x": (),
}


@pytest.mark.parametrize("body", CASES)
def test_what_keeps_a_service_on_one_node(folder, body):
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    project = folder.load(
        f"name: demo\nservices:\n  web:\n    image: i:1\n{lines}"
        "volumes: {data: , each: {x-corral: {per_slot: true}}, there: {name: 'd-{{.Node.ID}}'}}\n"
    )
    expected = tuple(what.replace("WORK", project.working_dir) for what in CASES[body])
    assert lint(project, []).pinned == ({"web": expected} if expected else {})


def test_a_sentence_of_it():
    assert sentence({"web": ("path /x",), "db": ("volume a", "volume b")}) == (
        "db (volume a, volume b), web (path /x)"
    )
