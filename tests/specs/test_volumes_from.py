"""`volumes_from`: what a service gets of another one's mounts."""

from __future__ import annotations

import pytest

from specs.compile.stack import compile_stack
from specs.problems import SpecError

DB = "volumes: ['data:/data', '/srv/x:/x:ro', /anonymous, 'more:/more']"
CASES = {
    # the service's own keys -> (source, target, read only) of its mounts, a word of the warning
    "volumes_from: [db]": (
        [("data", "/data", False), ("/srv/x", "/x", True), ("more", "/more", False)],
        "/anonymous has no name",
    ),
    "volumes_from: ['db:ro']": (
        [("data", "/data", True), ("/srv/x", "/x", True), ("more", "/more", True)],
        "/anonymous has no name",
    ),
    "volumes_from: ['plain:rw']": ([("data", "/p", False)], ""),
    "volumes_from: [plain]\nvolumes: ['more:/p']": ([("more", "/p", False)], ""),
    "volumes_from: [both]": ([("more", "/b", False), ("data", "/p", True)], ""),
    "volumes_from: [plain, both]": ([("data", "/p", False), ("more", "/b", False)], ""),
    "volumes_from: [fleeting]": ([], ""),
}


def compiled(folder, body):
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    project = folder.load(
        f"services:\n  web:\n    image: i:1\n{lines}  db:\n    image: d:1\n    {DB}\n"
        "  plain: {image: 'p:1', volumes: ['data:/p']}\n"
        "  both: {image: 'b:1', volumes: ['more:/b'], volumes_from: ['plain:ro']}\n"
        "  fleeting: {image: 'f:1', tmpfs: /t}\nvolumes: {data: , more: }\n"
    )
    return compile_stack(project.model, {}, "demo")


@pytest.mark.parametrize("body", CASES)
def test_what_is_mounted(folder, body):
    mounts, warning = CASES[body]
    spec, problems = compiled(folder, body)
    assert [(m.source, m.target, m.read_only) for m in spec.services["web"].task.mounts] == mounts
    assert bool(problems) == bool(warning)
    assert all(warning in problem.message for problem in problems)


@pytest.mark.parametrize("other", ["container:x", "container:x:ro"])
def test_containers_that_are_none_of_the_files_are_refused(folder, other):
    with pytest.raises(SpecError) as refused:
        compiled(folder, f"volumes_from: ['{other}']")
    (problem,) = refused.value.problems
    assert "no container x" in problem.message
    assert problem.hint


def test_layers_that_share_their_ancestors(folder):
    """Each service is looked at once, not once for each way to it: those are 2 to the 30th."""
    lines = ["services:", "  a0: {image: i, volumes: ['data:/a']}", "  b0: {image: i}"]
    for n in range(1, 31):
        for name in "ab":
            below = f"[a{n - 1}, 'b{n - 1}:ro']"
            lines.append(f"  {name}{n}: {{image: i, volumes_from: {below}}}")
    text = "\n".join([*lines, "volumes: {data: }", ""])
    model = folder.load(text).model
    spec, _ = compile_stack(model, {}, "demo")
    mounts = spec.services["b30"].task.mounts
    assert [(m.source, m.target, m.read_only) for m in mounts] == [("data", "/a", False)]
