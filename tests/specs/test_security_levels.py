"""What ``x-corral.security`` refuses, by key, and what it changes by itself: two tables."""

from __future__ import annotations

import pytest

from specs.compile.security import LEVELS, PIDS
from specs.compose.load import examine
from specs.lint.report import lint
from specs.problems import SpecError
from tests.specs.test_compile import stack

# (what a service says, where it is refused, the first level that refuses it)
FORBIDDEN = [
    ({"privileged": True}, "privileged", "baseline"),
    ({"network_mode": "host"}, "network_mode", "baseline"),
    ({"cap_add": ["NET_RAW"]}, "cap_add[0]", "baseline"),
    ({"cap_add": ["NET_BIND_SERVICE", "SYS_ADMIN"]}, "cap_add[1]", "baseline"),
    ({"cap_add": ["ALL"]}, "cap_add[0]", "baseline"),
    ({"cap_add": ["CAP_CHOWN"]}, "cap_add[0]", "restricted"),
    ({"cap_add": ["net_bind_service"]}, "", ""),
    ({"devices": [{"source": "/dev/fuse"}]}, "devices[0]", "baseline"),
    ({"security_opt": ["seccomp:unconfined"]}, "security_opt[0]", "baseline"),
    ({"security_opt": ["apparmor=unconfined"]}, "security_opt[0]", "baseline"),
    ({"security_opt": ["no-new-privileges:false"]}, "security_opt[0]", "restricted"),
    ({"security_opt": ["no-new-privileges"]}, "", ""),
    ({"sysctls": {"net.core.somaxconn": "1"}}, "sysctls.net.core.somaxconn", "baseline"),
    ({"sysctls": {"net.ipv4.tcp_syncookies": "1"}}, "", ""),
    ({"volumes": [{"type": "bind", "source": "/", "target": "/h"}]}, "volumes[0]", "baseline"),
    ({"volumes": [{"type": "volume", "source": "v", "target": "/h"}]}, "", ""),
    ({"volumes": [{"type": "tmpfs", "target": "/h"}]}, "", ""),
    ({"ports": [{"target": 80, "published": "80", "mode": "host"}]}, "ports[0]", "baseline"),
    ({"ports": [{"target": 80, "published": "80", "mode": "ingress"}]}, "", ""),
    ({"user": "0"}, "user", "restricted"),
    ({"user": "root:5"}, "user", "restricted"),
    ({"user": "1000"}, "", ""),
    ({"read_only": False}, "read_only", "restricted"),
    ({"read_only": True}, "", ""),
]


def refused(service, level, whole):
    ours = {"security": level}
    body = {"a": {"image": "x", **service, **({} if whole else {"x-corral": ours})}}
    more = {"volumes": {"v": {}}, **({"x-corral": ours} if whole else {})}
    try:
        stack(body, **more)
    except SpecError as error:
        return {p.path: p.message for p in error.problems if "x-corral" in p.message}
    return {}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("service", "key", "first"), FORBIDDEN)
def test_a_level_refuses_by_the_key_and_its_own_name(service, key, first, whole):
    for level in LEVELS:
        found = refused(service, level, whole)
        hit = bool(first) and LEVELS.index(level) >= LEVELS.index(first)
        assert list(found) == ([f"services.a.{key}"] if hit else []), level
        assert all(f"x-corral.security: {level}" in words for words in found.values())


@pytest.mark.parametrize(
    ("level", "service", "fields"),
    [
        ("default", {}, ("default", False, False, None)),
        ("baseline", {}, ("baseline", True, False, PIDS)),
        ("restricted", {}, ("restricted", True, True, PIDS)),
        ("baseline", {"security_opt": ["no-new-privileges:false"]},
         ("baseline", False, False, PIDS)),
        ("baseline", {"pids_limit": 50}, ("baseline", True, False, 50)),
        ("restricted", {"x-corral": {"security": "baseline"}}, ("baseline", True, False, PIDS)),
        ("baseline", {"x-corral": {"security": "default"}}, ("default", False, False, None)),
    ],
)  # fmt: skip
def test_what_a_level_changes_by_itself(level, service, fields):
    spec, _ = stack({"a": {"image": "x", **service}}, **{"x-corral": {"security": level}})
    task = spec.services["a"].task
    assert (
        task.security,
        task.no_new_privileges,
        task.read_only,
        task.resources.limits.pids,
    ) == fields


@pytest.mark.parametrize("whole", [False, True])
def test_a_level_that_is_none_is_refused_with_those_there_are(whole):
    ours = {"x-corral": {"security": "paranoid"}}
    service, more = ({}, ours) if whole else (ours, {})
    path = "x-corral.security" if whole else "services.a.x-corral.security"
    with pytest.raises(SpecError, match="'paranoid' is not known here") as caught:
        stack({"a": {"image": "x", **service}}, **more)
    assert path in {problem.path for problem in caught.value.problems}


def test_the_refusal_names_file_and_line(tmp_path):
    (tmp_path / "compose.yaml").write_text(
        "name: s\nx-corral: {security: restricted}\nservices:\n  a:\n    image: x:1\n"
        "    cap_add:\n      - NET_BIND_SERVICE\n      - SYS_ADMIN\n"
    )
    project, problems = examine([str(tmp_path / "compose.yaml")], cwd=str(tmp_path), environ={})
    (found,) = [p for p in lint(project, problems).problems if "x-corral.security" in p.message]
    assert found.severity == "error"
    assert found.position is not None
    assert found.position.line == 8
    assert "SYS_ADMIN is not allowed at x-corral.security: restricted" in found.message
