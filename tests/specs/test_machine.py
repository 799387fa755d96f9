"""What a container shares with its machine: words that are known, refused, and what they become."""

from __future__ import annotations

import pytest

from specs.compile.machine import platform
from specs.compile.stack import compile_stack
from specs.problems import SpecError

FINE = {
    # what the file says -> fields of the task, and the only warnings
    "pid: host": {"pid": "host"},
    "pid: private": {"pid": "private"},
    "ipc: shareable": {"ipc": "shareable"},
    "ipc: private": {"ipc": "private"},
    "ipc: none": {"ipc": "none"},
    "uts: host": {"uts": "host"},
    "runtime: runc": {},
    "runtime: io.containerd.runc.v2": {},
    "cpuset: '0, 2-3'": {"cpuset": "0,2-3"},
    "mem_limit: 64m\nmemswap_limit: -1": {"memory_swap": -1},
    "memswap_limit: -1": {"memory_swap": -1},
    "mem_limit: 64m\nmemswap_limit: 64m": {"memory_swap": 64 << 20},
    "memswap_limit: 0": {"memory_swap": None},
    "deploy: {resources: {limits: {memory: 64m}}}\nmemswap_limit: 1g": {"memory_swap": 1 << 30},
    "tmpfs: '/t:exec,uid=5,gid=6,mode=700,size=50%'": {},
    "restart: unless-stopped": {},
}
REFUSED = {
    "pid: container:x": "container:x names a container",
    "ipc: service:db": "db does not lend its memory",
    "uts: other": "uts: other is not available",
    "uts: host\nhostname: me": "the node's host name",
    "runtime: nvidia": "the runtime nvidia is not available",
    "runtime: runsc": "the runtime runsc is not available",
    "cpuset: all": "names no processors",
    "cpuset: '0-'": "names no processors",
    "memswap_limit: 64m": "memory and swap together",
    "mem_limit: 64m\nmemswap_limit: 32m": "less than mem_limit",
    "tmpfs: '/t:frobnicate'": "a tmpfs has no option `frobnicate`",
    "tmpfs: '/t:uid=me'": "a tmpfs has no option `uid=me`",
    "deploy: {restart_policy: {condition: sometimes}}": "is not a restart policy",
}


def compiled(folder, body):
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    project = folder.load(f"services:\n  web:\n    image: i:1\n{lines}  db: {{image: 'd:1'}}\n")
    return compile_stack(project.model, {}, "demo")


@pytest.mark.parametrize("body", FINE)
def test_what_is_known(folder, body):
    spec, warnings = compiled(folder, body)
    task = spec.services["web"].task
    assert {key: getattr(task, key) for key in FINE[body]} == FINE[body]
    assert warnings == []


@pytest.mark.parametrize("body", REFUSED)
def test_what_is_refused_says_why(folder, body):
    with pytest.raises(SpecError) as refused:
        compiled(folder, body)
    (problem,) = refused.value.problems
    assert REFUSED[body] in problem.message
    assert problem.hint


@pytest.mark.parametrize(
    ("word", "condition"),
    [
        *(("no", "none"), ("none", "none"), ("on-failure", "on-failure")),
        *(("always", "any"), ("any", "any"), ("unless-stopped", "any")),
    ],
)
def test_restart_policies_in_either_language(folder, word, condition):
    for body in (f"restart: '{word}'", f"deploy: {{restart_policy: {{condition: '{word}'}}}}"):
        if body.startswith("restart: ") and word in ("none", "any"):
            continue
        spec, warnings = compiled(folder, body)
        assert spec.services["web"].task.restart.condition == condition
        assert warnings == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ""),
        ("linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/arm/v7", "linux/arm"),
        ("LINUX/aarch64", "linux/arm64"),
        ("windows", "windows"),
    ],
)
def test_a_platform_as_nodes_are_compared(text, expected):
    assert platform(text) == expected
