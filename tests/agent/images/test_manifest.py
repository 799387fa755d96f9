"""Manifests and configs of strangers: read when right, refused in words when not."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Refusal
from agent.images.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Index,
    Manifest,
    docker_type,
    parse_config,
    parse_manifest,
)
from specs.stack import Healthcheck

D = "sha256:" + "0" * 64
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def blob(**more: Any) -> dict[str, Any]:
    return {"digest": D, "size": 3, "mediaType": LAYER} | more


def manifest(**more: Any) -> bytes:
    value = {"schemaVersion": 2, "config": blob(), "layers": [blob()]} | more
    return json.dumps(value).encode()


def index(*platforms: dict[str, Any] | None, kind: str = OCI_INDEX) -> bytes:
    entries = [
        {"digest": f"sha256:{place:064x}", "size": 1} | ({"platform": p} if p is not None else {})
        for place, p in enumerate(platforms)
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()


@pytest.mark.parametrize("kind", ["", OCI_MANIFEST, DOCKER_MANIFEST])
def test_a_manifest_names_config_and_layers(kind) -> None:
    parsed = parse_manifest(manifest(mediaType=kind))
    assert isinstance(parsed, Manifest)
    assert [layer.digest for layer in parsed.layers] == [D]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "old"),
        (json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(), "schema 1"),
        (manifest(mediaType="text/html"), "unknown type"),
        (manifest(manifests=[]), "claims to be an index too"),
        (manifest(layers=None), "no config or no layers"),
        (manifest(layers=[blob()] * 128), "128 layers; the limit is 127"),
        (manifest(layers=["x"]), "not a descriptor"),
        (manifest(layers=[blob(digest="sha256:../../x")]), "not a digest"),
        (manifest(layers=[blob(digest=7)]), "no digest"),
        (manifest(layers=[blob(size=-1)]), "valid size"),
        (manifest(layers=[blob(size=True)]), "valid size"),
        (manifest(layers=[blob(size="3")]), "valid size"),
        (manifest(layers=[blob(mediaType="application/zip")]), "unknown type"),
        (manifest(config=None), "not a descriptor"),
        (b" " * (MAX_MANIFEST + 1), "the limit is"),
        (json.dumps({"schemaVersion": 2, "manifests": 3}).encode(), "not a list"),
    ],
)
def test_other_manifests_are_refused_in_words(data, words) -> None:
    with pytest.raises(Refusal, match=words):
        parse_manifest(data)


AMD = {"os": "linux", "architecture": "amd64"}
ARM = {"os": "linux", "architecture": "arm64", "variant": "v8"}
ARM6 = {"os": "linux", "architecture": "arm", "variant": "v6"}
ARM7 = {"os": "linux", "architecture": "arm", "variant": "v7"}


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        ("linux/amd64", 1),
        ("linux/arm64/v8", 2),
        ("linux/arm64", 2),
        ("linux/arm/v7", 4),
        ("linux/arm/v6", 3),
    ],
)
@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_LIST])
def test_an_index_is_chosen_from_by_platform(kind, wanted, place) -> None:
    unknown = {"os": "unknown", "architecture": "unknown"}
    parsed = parse_manifest(index(unknown, AMD, ARM, ARM6, ARM7, None, {"os": 1}, kind=kind))
    assert isinstance(parsed, Index)
    assert parsed.choose(wanted).digest == f"sha256:{place:064x}"


def test_a_missing_platform_is_refused_with_what_there_is() -> None:
    parsed = parse_manifest(index(AMD, ARM))
    assert isinstance(parsed, Index)
    with pytest.raises(Refusal, match="not made for linux/s390x; it has: linux/amd64, linux/arm64"):
        parsed.choose("linux/s390x")


def config(run: Any = None, **more: Any) -> bytes:
    return json.dumps({"config": run, "rootfs": {"diff_ids": [D]}} | more).encode()


def test_a_config_becomes_what_containers_are_told() -> None:
    run = {
        "Entrypoint": ["/app"],
        "Cmd": ["serve"],
        "Env": ["A=1", "B=x=y", "C"],
        "User": "www",
        "WorkingDir": "/srv",
        "StopSignal": "SIGQUIT",
        "Volumes": {"/data": {}, "/a": {}},
        "Labels": {"k": "v"},
        "Healthcheck": {"Test": ["CMD", "ok"], "Interval": 2_000_000_000, "Retries": 0},
    }
    found = parse_config(config(run, created="2026-01-01T00:00:00Z"), D, 1)
    assert found.created == "2026-01-01T00:00:00Z"
    image = found.image
    assert (image.entrypoint, image.command) == (("/app",), ("serve",))
    assert image.environment == {"A": "1", "B": "x=y", "C": ""}
    assert (image.user, image.working_dir, image.stop_signal) == ("www", "/srv", "SIGQUIT")
    assert image.volumes == ("/a", "/data")
    assert image.healthcheck == Healthcheck(test=("CMD", "ok"), interval=2.0)


def test_an_empty_config_is_fine() -> None:
    found = parse_config(config(), D, 1)
    assert found.image.command == ()
    assert found.image.healthcheck is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{}", "not a container image"),
        (config(rootfs={"diff_ids": [1]}), "not a container image"),
        (config(rootfs={"diff_ids": [D, D]}), "2 layers, its manifest 1"),
        (config(rootfs={"diff_ids": ["sha256:zz"]}), "not a digest"),
        (config([]), ""),
        (config("x"), "malformed"),
        (config({"Env": "A=1"}), "Env is not a list"),
        (config({"Cmd": [1]}), "Cmd is not a list"),
        (config({"User": 0.5}), "User is not a string"),
        (config({"Volumes": ["/a"]}), "Volumes is not a mapping"),
    ],
)
def test_malformed_configs_are_refused_in_words(data, words) -> None:
    if not words:  # an empty list says nothing, as null does
        parse_config(data, D, 1)
        return
    with pytest.raises(Refusal, match=words):
        parse_config(data, D, 1)


HOSTILE = {
    "a NUL in an argument": ({"Cmd": ["a\0b"]}, "Cmd: .* NUL"),
    "a NUL in the entrypoint": ({"Entrypoint": ["a\0b"]}, "Entrypoint: .* NUL"),
    "a NUL in a variable": ({"Env": ["A=\0"]}, "Env: .* NUL"),
    "a NUL in a check": ({"Healthcheck": {"Test": ["CMD", "\0"]}}, "Healthcheck: .* NUL"),
    "a NUL in a label": ({"Labels": {"k": "\0"}}, "Labels: .* NUL"),
    "half a character": ({"Cmd": ["\ud800"]}, "Cmd: .* not Unicode"),
    "two lines of a user": ({"User": "a\nroot:x:0:0"}, "User: .* control characters"),
    "other digits": ({"User": "\N{ARABIC-INDIC DIGIT THREE}"}, "User: .* digits other than 0 to 9"),
    "a raised two": ({"User": "0:\N{SUPERSCRIPT TWO}"}, "User: .* digits other than 0 to 9"),
    "three parts": ({"User": "a:b:c"}, "User: .* more than user and group"),
    "a terminal's orders": ({"WorkingDir": "/\x1b[2J"}, "WorkingDir: .* control characters"),
    "a signal of two lines": ({"StopSignal": "TERM\n"}, "StopSignal: .* control characters"),
    "a variable's name": ({"Env": ["A\nB=1"]}, "Env: .* control characters"),
    "a volume in /proc": ({"Volumes": {"/proc/sys": {}}}, "Volumes: '/proc/sys' is inside /proc"),
    "the same in disguise": ({"Volumes": {"//proc/./sys/": {}}}, "Volumes: .* inside /proc"),
    "a volume upwards": ({"Volumes": {"/a/../proc": {}}}, "Volumes: .* leads upwards"),
    "a volume of two lines": ({"Volumes": {"/a\nb": {}}}, "Volumes: .* control characters"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_config_is_refused_by_its_field(case) -> None:
    run, words = HOSTILE[case]
    with pytest.raises(Refusal, match=f"the image's {words}"):
        parse_config(config(run), D, 1)


def test_what_images_of_this_world_say_is_fine() -> None:
    run = {
        "User": "1000:www-data",
        "WorkingDir": "/srv/a b/\u00e9",
        "Env": ["TEXT=one\ntwo\t\x1b[0m", "A B=1"],
        "Cmd": ["printf", "\x1b[31m\n"],
        "Labels": {"org.x": "{\n}"},
        "Volumes": {"/sys/fs/cgroup": {}, "/data dir": {}, "relative": {}, "/": {}, "/dev/shm": {}},
    }
    assert parse_config(config(run), D, 1).image.user == "1000:www-data"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests"]),
        json_values | st.just(2) | st.just([blob()]) | st.just(blob()),
    )
)
def test_any_json_is_a_manifest_or_refused(value) -> None:
    with contextlib.suppress(Refusal):
        parse_manifest(json.dumps(value).encode())


@given(
    st.dictionaries(
        st.sampled_from(["Entrypoint", "Env", "User", "Volumes", "Labels", "Healthcheck"]),
        json_values,
    )
)
def test_any_json_is_a_config_or_refused(value) -> None:
    with contextlib.suppress(Refusal):
        parse_config(config(value), D, 1)


@pytest.mark.parametrize(
    ("given_type", "docker"),
    [
        ("application/vnd.oci.image.layer.v1.tar", "rootfs.diff.tar"),
        ("application/vnd.oci.image.layer.v1.tar+gzip", "rootfs.diff.tar.gzip"),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", "rootfs.diff.tar.zstd"),
    ],
)
def test_layer_types_have_a_docker_name(given_type, docker) -> None:
    assert docker_type(given_type) == f"application/vnd.docker.image.{docker}"
