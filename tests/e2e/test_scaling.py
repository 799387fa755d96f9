"""`scale` on real containers: at once, whatever the stack is in, and always with a verdict."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.real

SHOP = """
services:
  web:
    image: busybox
    command: [sh, -c, "%s"]
    restart: always
    stop_grace_period: 0s
    volumes: ["data:/data"]
volumes: {data: {}}
"""
SLEEP = "exec sleep inf"
AT_ONCE = 100.0  # seconds that a second may be on a busy machine; a deadline is 600
ONE_EACH = """
services:
  web:
    image: busybox
    command: [sleep, inf]
    stop_grace_period: 0s
    deploy: {placement: {max_replicas_per_node: 1}}
"""


def took(corral, *words, code=0):
    began = time.monotonic()
    done = corral(*words, code=code)
    return time.monotonic() - began, done


def releases(corral):
    """Return the release of each copy that serves."""
    return [row["release"] for row in corral.rows(service="web") if row["ready"]]


def test_after_a_paused_update_it_acts_at_once_in_the_spec_that_serves(corral):
    corral.compose(SHOP % SLEEP)
    corral("up", "-d")
    (first,) = releases(corral)  # history outlives `down`, and an earlier test's may be there
    corral.compose(SHOP % "echo gone; exit 4")
    corral("up", "-d", code=1)
    shares = "the 2 copies of web share the volume"
    for count, warned in ((2, True), (3, False), (1, False)):
        seconds, done = took(corral, "scale", f"web={count}")
        assert seconds < AT_ONCE
        assert releases(corral) == [first] * count, "copies of what serves, and all of them"
        words = f"web is scaled as release {first} has it: release {first + 1} failed"
        assert words in done.stderr
        assert (shares in done.stderr) == warned, "once"
        assert f"web {count}/{count}" in done.stderr
    seconds, _ = took(corral, "scale", "web=0")
    assert seconds < AT_ONCE
    assert corral.rows(service="web") == []
    corral.compose(SHOP % SLEEP)
    done = corral("up", "-d")
    assert "web keeps the 0 replicas it was scaled to; the file says 1" in done.stderr
    assert corral.rows(service="web") == []
    done = corral("up", "-d", "--scale", "web=1")
    assert "keeps the" not in done.stderr
    assert len(releases(corral)) == 1


def test_a_crash_loop_is_the_verdict_and_down_is_quick(corral):
    corral.compose(SHOP % "sleep 0.3; echo no route; exit 4")
    corral("up", "-d", "--deadline", "4", code=1)
    seconds, done = took(corral, "scale", "web=2", code=1)
    assert seconds < 300, "and not the deadline"
    assert "scale of" in done.stderr
    assert "web-2: restarting: exit code 4" in done.stderr
    assert "never up for 5 s" in done.stderr
    assert "| no route" in done.stderr
    assert "warning: as it was before scaling: web-1" in done.stderr
    for count in (1, 0):
        seconds, _ = took(corral, "scale", f"web={count}")
        assert seconds < AT_ONCE, "fewer copies of a crash loop need no success"
    assert corral.rows(service="web") == []


def test_a_copy_without_a_place_is_said_after_ten_seconds(corral):
    corral.compose(ONE_EACH)
    corral("up", "-d")
    seconds, done = took(corral, "scale", "web=2", code=1)
    assert 10 <= seconds < AT_ONCE
    assert "web-2: pending" in done.stderr
    assert "max_replicas_per_node" in done.stderr
    assert len(releases(corral)) == 1, "what runs runs on"
    seconds, _ = took(corral, "scale", "web=1")
    assert seconds < AT_ONCE
    assert len(corral.rows(service="web")) == 1
