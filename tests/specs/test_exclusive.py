"""``x-corral.exclusive: true``: what goes with it, and what is refused where it is written."""

from __future__ import annotations

import pytest

from specs import skew
from specs.compile.stack import compile_stack
from specs.problems import SpecError

FILE = """
services:
  other: {{image: 'o:1'}}
  db:
    image: db:1
    x-corral: {{exclusive: {value}}}
{lines}
"""


def compiled(folder, lines="", value="true"):
    more = "".join(f"    {line}\n" for line in lines.splitlines())
    project = folder.load(FILE.format(lines=more, value=value))
    return compile_stack(project.model, project.origins, "demo")[0]


REFUSED = {
    "scale: 2": ("one copy, not 2", "write 1"),
    "deploy: {replicas: 3}": ("one copy, not 3", "write 1"),
    "deploy: {mode: global}": ("not one on every node", "leave mode out"),
    "deploy: {update_config: {order: start-first}}": ("the old copy ends before", "stop-first"),
    "deploy: {rollback_config: {order: start-first}}": ("the old copy ends before", "stop-first"),
    "network_mode: host": ("told from what its machine sends", "publish its ports"),
    "network_mode: service:other": ("a network of its own", "leave network_mode out"),
}


@pytest.mark.parametrize("lines", REFUSED)
def test_what_does_not_go_with_it_is_refused_where_it_is_written(folder, lines):
    words, hint = REFUSED[lines]
    with pytest.raises(SpecError) as caught:
        compiled(folder, lines)
    (problem,) = caught.value.problems
    assert words in problem.message
    assert hint in problem.hint
    assert ":7:" in str(problem.position), "file, line and column"


@pytest.mark.parametrize(
    "lines", ["", "scale: 1", "deploy: {replicas: 0}", "network_mode: none", "ports: ['80']"]
)
def test_what_goes_with_it(folder, lines):
    assert compiled(folder, lines).services["db"].task.exclusive


def test_it_is_asked_for(folder):
    assert not compiled(folder, "scale: 2", "false").services["db"].task.exclusive


def test_a_node_that_does_not_know_leases_never_gets_it(folder):
    task = compiled(folder).services["db"].task
    assert skew.unfit(task, 1) == "x-corral.exclusive"
    assert not skew.unfit(task, 2)
