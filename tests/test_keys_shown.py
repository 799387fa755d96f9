"""Keys whose honouring only a container shows: each names its test on one host and on several."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from specs.compile.support import KeyVerdict, support_of

ROOT = Path(__file__).parent.parent
ONE = "tests/e2e/test_keys.py::test_what_each_key_makes_of_a_container"
SEVERAL = "tests/e2e/multi/test_keys.py::test_what_each_key_makes_of_a_container_on_another_node"
STACK = "tests/e2e/keys.py"
BOTH = (ONE, SEVERAL)
# key -> the tests whose stack has it: on one host, and on several
SHOWN = {
    "services.*.tmpfs": BOTH,
    "services.*.volumes[].tmpfs.size": BOTH,
    "services.*.volumes[].tmpfs.mode": BOTH,
    "services.*.volumes[].target": BOTH,
    "services.*.volumes[].volume.subpath": BOTH,
    "services.*.links": BOTH,
    "services.*.external_links": BOTH,
    "services.*.extra_hosts": BOTH,
    "services.*.hostname": BOTH,
    "services.*.environment": BOTH,
    "services.*.deploy.restart_policy.condition": BOTH,
    "services.*.pid": BOTH,
    "services.*.ipc": BOTH,
    "services.*.uts": BOTH,
    "services.*.network_mode": BOTH,
    "services.*.volumes_from": BOTH,
    "services.*.memswap_limit": BOTH,
    "services.*.mem_limit": BOTH,
    "services.*.cpuset": BOTH,
    "services.*.cpu_shares": BOTH,
    "services.*.platform": BOTH,
    "services.*.runtime": BOTH,
    "services.*.post_start": BOTH,
    "services.*.pre_stop": BOTH,
    "networks.*.ipam.driver": BOTH,
    "networks.*.ipam.config[].subnet": BOTH,
    "volumes.*.name": BOTH,
    "volumes.*.driver_opts": BOTH,
}
# What two services make together, with stacks of their own: on one host, and on several.
PAIRS = (
    "tests/e2e/test_pairs.py::test_a_network_of_two_through_a_day",
    "tests/e2e/multi/test_pairs.py::test_pairs_are_updated_drained_and_ended_together",
)
SHARED = ("network_mode: service:web", "pid: service:web", "ipc: service:web", "ipc: shareable")
# What else the stack says in place of a key's usual value.
WORDS = {
    "services.*.tmpfs": ("exec,", "uid=", "gid=", "mode=", "size=", "noatime", "ro"),
    "services.*.extra_hosts": ("host-gateway",),
    "services.*.hostname": ("{{.Service.Name}}", "{{.Task.Slot}}"),
    "services.*.environment": ("{{.Node.Hostname}}",),
    "services.*.volumes[].target": ("slotted:/slotted/{{.Task.Slot}}",),
    "volumes.*.name": ("{{.Service.Name}}-{{.Task.Slot}}",),
    "services.*.links": ("here:mysql",),
    "services.*.ipc": ("ipc: host", "ipc: shareable", "ipc: none"),
    "services.*.deploy.restart_policy.condition": (
        *("unless-stopped", "on-failure", "always", 'condition: "no"'),
    ),
    "volumes.*.driver_opts": ("type: tmpfs", "size=1m", "type: none", "bind,ro"),
}


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, functions))


@pytest.mark.parametrize("key", SHOWN)
def test_the_key_is_in_the_stack_of_its_tests(key):
    # `default` is the one driver there is: named, and nothing to honour.
    assert support_of(key).verdict is KeyVerdict.HONOURED or key == "networks.*.ipam.driver"
    last = key.rpartition(".")[2].removesuffix("[]")
    for shown in SHOWN[key]:
        path, _, name = shown.partition("::")
        assert name in functions_of(path), shown
    text = (ROOT / STACK).read_text()
    for word in (f"{last}:", *WORDS.get(key, ())):
        assert word in text, f"{key} ({word}) is in no stack of {STACK}"


@pytest.mark.parametrize("shown", PAIRS)
def test_what_services_share_is_in_the_stacks_of_its_tests(shown):
    path, _, name = shown.partition("::")
    assert name in functions_of(path), shown
    text = (ROOT / path).read_text()
    for word in SHARED:
        assert word in text, f"{word} is in no stack of {path}"
