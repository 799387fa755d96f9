"""What is reported of a container's command: what its spec alone does not say."""

from __future__ import annotations

import pytest

from agent.tasks.record import COMMAND_TOLD, Record
from agent.vocabulary import ImageConfig
from specs.stack import TaskSpec
from specs.wire import Assignment

IMAGE = {"entrypoint": ("/entry",), "command": ("serve",)}


@pytest.mark.parametrize(
    ("spec", "image", "told"),
    [
        ({}, IMAGE, ("/entry", "serve")),
        ({"command": ("other",)}, IMAGE, ("/entry", "other")),
        ({"command": ("other",)}, {"command": ("serve",)}, ()),  # the spec says all
        ({"entrypoint": ("/mine",)}, IMAGE, ()),
        ({}, {"command": ("sh", "-c", "x" * 9000)}, ("sh", "-c", "x" * (COMMAND_TOLD - 6) + "…")),
        ({}, {"command": ("x" * COMMAND_TOLD, "y" * 9000)}, ("x" * COMMAND_TOLD, "…")),
        ({}, {}, ()),
        ({}, None, ()),  # it is not there yet
    ],
)
def test_the_words_of_the_image(spec, image, told):
    found = Record(
        id="t",
        state="running",
        image=None if image is None else ImageConfig(digest="sha256:1", **image),
        assignment=Assignment(
            id="t",
            stack="app",
            service="web",
            slot=1,
            name="app-web-1",
            desired="running",
            spec=TaskSpec(image="i", **spec),
        ),
    )
    assert found.status().command == told
