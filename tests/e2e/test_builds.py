"""What is built, for whom and with which values, in a real container: one stack, many `up`."""

from __future__ import annotations

import pytest

from orchestrator.client.client import Client

pytestmark = pytest.mark.real

# `user` names what `maker` builds; `twin` builds the same under the same name.
STACK = """
services:
  user:
    image: made-here
    command: &hold [sh, -c, "trap 'exit 0' TERM; sleep inf & wait"]
  maker: &maker
    image: made-here
    build:
      context: .
      args: {TAG: "${TAG:-1}"}
    command: *hold
  twin: *maker
"""
DOCKERFILE = """\
FROM busybox
RUN echo $((40 + 2)) of all
ARG TAG
ENV SHOWN=value-$TAG
LABEL shown=value-$TAG
"""


def test_one_build_for_all_who_name_it_with_the_values_of_now(corral):
    corral.compose(STACK, Dockerfile=DOCKERFILE)
    images: dict[str, str] = {}
    for turn, tag in enumerate(("1", "2", "3", "1")):
        corral.env = {"TAG": tag}
        done = corral("up", "-d", "--build")
        said = done.stdout + done.stderr
        assert ("Using cache" in said) is (turn > 0), said
        for service in ("user", "maker", "twin"):
            shown = corral("exec", "-T", service, "sh", "-c", "echo $SHOWN").stdout
            assert shown == f"value-{tag}\n", (turn, service)
        found = corral("config", "--images", "--resolve-image-digests").stdout.split()
        # Who is only told the image's name gets it by digest; what is built here has none.
        digests = {line.partition("@")[2] for line in found} - {""}
        assert len(digests) == 1
        digest = digests.pop()
        assert images.setdefault(tag, digest) == digest


def test_a_sibling_that_builds_it_is_enough_to_have_the_image(corral):
    """No registry is asked for a name that this file makes."""
    corral.compose(
        "services:\n"
        "  user: {image: 'only-here:1', command: ['true']}\n"
        "  maker: {image: 'only-here:1', build: ., command: ['true']}\n",
        Dockerfile="FROM busybox\nENV A=1\n",
    )
    done = corral("up", "-d")
    assert "registry" not in done.stdout + done.stderr
    corral("-p", "other", "up", "-d")
    kept = corral("down", "--rmi", "all").stderr
    assert "image only-here:1 stays on" in kept, kept
    assert "container other-" in kept, kept
    assert _names(corral) >= {"only-here:1"}
    gone = corral("-p", "other", "down", "--rmi", "all").stderr
    assert "image only-here:1 removed on" in gone, gone
    left = _names(corral)
    assert "only-here:1" not in left
    assert "busybox:latest" in left, "what it was built from is no service's"


def _names(corral) -> set[str]:
    """Return the names of the images its node has."""
    agent = Client(f"unix:///proc/{corral.host.pid}/root/run/corral/agent.sock")
    return {name for image in agent.get("/v1/images")["images"] for name in image.get("names", ())}
