"""Swarm's words in the names of volumes: which are filled in, and which are refused."""

from __future__ import annotations

import re

import pytest

from specs.compile.stack import compile_stack
from specs.problems import SpecError
from specs.stack import VolumeSpec

REFUSED = {
    "{{.Task.ID}}": "is another one for each new task",
    "d-{{ .Task.Name }}": "is another one for each new task",
    "{{.Node.Platform.OS}}": "is no word for the name of a volume",
    "{{.Service.ID}}": "is no word for the name of a volume",
    "{{.Service.Labels.x}}": "is no word for the name of a volume",
    "{{index .Service.Labels}}": "is not a valid name",
    "-{{.Task.Slot}}": "is not a valid name",
    "{{.Task.Slot": "is not a valid name",
}
TAKEN = ["{{.Task.Slot}}", "{{.Service.Name}}_{{.Task.Slot}}", "a.{{ .Node.Hostname }}", "plain"]


def said(volume, **service):
    project = {
        "name": "demo",
        "services": {"web": {"image": "i", "volumes": [
            {"type": "volume", "source": "data", "target": "/d"}], **service}},
        "volumes": {"data": volume},
    }  # fmt: skip
    try:
        compile_stack(project, {}, "demo")
    except SpecError as error:
        return [(p.path, p.message) for p in error.problems]
    return []


@pytest.mark.parametrize("name", [*REFUSED, *TAKEN])
def test_which_words_a_name_has(name):
    found = said({"name": name})
    if name in TAKEN:
        assert found == []
    else:
        ((path, message),) = found
        assert path == "volumes.data.name"
        assert REFUSED[name] in message


@pytest.mark.parametrize(
    ("volume", "service", "path"),
    [
        ({"name": "d-{{.Task.Slot}}", "external": True}, {}, "volumes.data.name"),
        ({"name": "d-{{.Task.Slot}}"}, {"deploy": {"mode": "global"}}, "volumes.data.name"),
        (
            {"name": "d", "driver_opts": {"type": "nfs", "o": "addr=192.0.2.1",
                                          "device": ":/x/{{.Task.Slot}}"}},
            {},
            "volumes.data.driver_opts.device",
        ),
        ({"name": "d-{{.Node.Hostname}}"}, {"deploy": {"mode": "global"}}, ""),
    ],
)  # fmt: skip
def test_where_they_make_no_sense(volume, service, path):
    assert [p for p, _ in said(volume, **service)] == ([path] if path else [])


@pytest.mark.parametrize(
    ("volume", "mine", "others"),
    [
        (VolumeSpec(name="d"), ["d"], ["d-1", "dd"]),
        (VolumeSpec(name="d", per_slot=True), ["d-1", "d-22"], ["d", "d-x"]),
        (VolumeSpec(name="d-{{.Task.Slot}}", per_slot=True), ["d-1", "d-22"], ["d-1-1", "d-x"]),
        (VolumeSpec(name="d.{{.Node.Hostname}}"), ["d.host1"], ["d", "dxhost1"]),
        (VolumeSpec(name="{{.Service.Name}}-x"), ["demo_web-x", "demo_a-b-x"], ["other_web-x"]),
    ],
)
def test_which_volumes_are_meant(volume, mine, others):
    """Law: every name it gets is among those that count as its own."""
    pattern = re.compile(volume.names("demo"))
    assert all(pattern.fullmatch(name) for name in mine)
    assert not any(pattern.fullmatch(name) for name in others)
    words = {"Node.Hostname": "host-1.a", "Node.ID": "n1"}
    assert pattern.fullmatch(volume.name_of("demo_web", 7, words))
