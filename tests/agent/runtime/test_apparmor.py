"""Where AppArmor is, what containers run under, and what is said where it is not.

No kernel here has it: what the profile does was not tried. Its text is held against what it must
say, and against the parser where that is installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from agent import facts
from agent.runtime.apparmor import NAME, PROFILE, Confinement, judge
from agent.runtime.exec import describe
from specs.kit import confinement
from specs.wire import ExecRequest
from tests.agent.runtime.test_bundle import HOST, build


@pytest.mark.parametrize(
    ("enabled", "parser", "failure", "profile", "said"),
    [
        (False, False, None, "", "no AppArmor in this kernel"),
        (False, True, None, "", "no AppArmor in this kernel"),
        (True, False, None, "", "install Debian's apparmor package"),
        (True, True, None, NAME, ""),
        (True, True, "Permission denied", "", "without it: Permission denied"),
        (True, True, "", "", "without it: no reason given"),
    ],
)
def test_what_containers_run_under(enabled, parser, failure, profile, said):
    found = judge(enabled=enabled, parser=parser, failure=failure)
    assert found.profile == profile
    assert (said in found.warning) if said else found == Confinement(profile=NAME)
    assert bool(found.profile) != bool(found.warning), "law: one of the two, never silence"


@pytest.mark.parametrize(
    ("text", "there"), [("Y\n", True), ("N\n", False), ("", False), (None, False)]
)
def test_whether_the_kernel_has_it(tmp_path, text, there):
    path = tmp_path / "enabled"
    if text is not None:
        path.write_text(text)
    assert confinement.has_apparmor(str(path)) is there


@pytest.mark.parametrize(
    ("keys", "host", "profile"),
    [
        ({}, "", None),
        ({}, NAME, NAME),
        ({"apparmor": "unconfined"}, NAME, None),
        ({"privileged": True}, NAME, None),
        ({"seccomp": "unconfined"}, NAME, NAME),
        ({"cap_add": ("SYS_ADMIN",)}, NAME, NAME),
        ({"apparmor": "unconfined"}, "", None),
    ],
)
def test_the_bundle_names_the_profile_that_is_loaded(keys, host, profile):
    config = build(host=replace(HOST, apparmor=host), **keys).config
    assert config["process"].get("apparmorProfile") == profile


@pytest.mark.parametrize(("privileged", "profile"), [(False, NAME), (True, None)])
def test_a_command_inside_runs_under_the_containers_profile(privileged, profile):
    config = build(host=replace(HOST, apparmor=NAME)).config
    process = describe(config, ExecRequest(command=("sh",), privileged=privileged))
    assert process.get("apparmorProfile") == profile


def test_the_profile_refuses_what_the_filter_cannot_see():
    assert PROFILE.startswith(f"profile {NAME} ")
    rules = [line.strip() for line in PROFILE.splitlines()[1:-1]]
    for rule in ("deny network alg,", "deny network vsock,", "deny mount,", "file,", "network,"):
        assert rule in rules
    for peer in ("unconfined", "crun", "runc"):
        assert f"signal (receive) peer={peer}," in rules, "law: it can be ended by us"
    assert not [rule for rule in rules if rule and not re.fullmatch(r"#.*|.*[,.]", rule)]


@pytest.mark.skipif(shutil.which("apparmor_parser") is None, reason="no apparmor_parser here")
def test_the_parser_takes_the_profile():
    done = subprocess.run(
        ["apparmor_parser", "--skip-kernel-load", "--skip-cache"],
        input=PROFILE,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_node_says_so_where_it_is_missing():
    found = facts.probe("crun", "crun 1.28", frozenset(), (confinement.MISSING,))
    assert found.warnings[0] == confinement.MISSING
    assert facts.probe("crun", "crun 1.28", frozenset()).warnings == found.warnings[1:]
