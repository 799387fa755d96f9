"""Image names: one canonical spelling, and nothing dangerous gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Refusal
from agent.images.reference import DIGEST, check_digest, parse

D = "sha256:" + "a1" * 32


@pytest.mark.parametrize(
    ("text", "name", "familiar"),
    [
        ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("nginx:1.28", "docker.io/library/nginx:1.28", "nginx:1.28"),
        ("team/app", "docker.io/team/app:latest", "team/app:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1", "localhost:5000/a/b:v1"),
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest", "127.0.0.1:5000/x:latest"),
        ("[::1]:5000/x:1", "[::1]:5000/x:1", "[::1]:5000/x:1"),
        ("Quay.example/x", "Quay.example/x:latest", "Quay.example/x:latest"),
        (f"nginx@{D}", "docker.io/library/nginx", "nginx"),
        (f"nginx:1@{D}", "docker.io/library/nginx:1", "nginx:1"),
    ],
)
def test_names_are_spelled_as_docker_spells_them(text, name, familiar) -> None:
    reference = parse(text)
    assert (reference.name, reference.familiar) == (name, familiar)
    assert parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has no name"),
        ("Nginx", "lower case"),
        ("a//b", "is not a name"),
        ("../../etc", "not a valid reference"),
        ("--help", "is not a name"),
        ("nginx:", "tag behind ':' is empty"),
        ("nginx:a b", "is not a tag"),
        ("nginx:" + "t" * 129, "tag is longer than 128"),
        ("nginx@sha256:../../etc/passwd", "not a digest"),
        ("nginx@sha256:" + "A1" * 32, "not a digest"),
        ("nginx@md5:abc", "not a digest"),
        ("a" * 300, "longer than"),
        ("exa mple.com/x", "is not the host of a registry"),
        ("-x.example/y", "is not the host of a registry"),
    ],
)
def test_other_text_is_refused_in_words(text, words) -> None:
    with pytest.raises(Refusal, match=words):
        parse(text)


@given(st.text(max_size=100))
def test_any_text_is_parsed_or_refused(text) -> None:
    try:
        reference = parse(text)
    except Refusal:
        return
    assert not reference.name.startswith("-")
    assert ".." not in reference.repository.split("/")
    assert parse(str(reference)) == reference


@given(st.text(max_size=80))
def test_only_digests_are_digests(text) -> None:
    try:
        assert DIGEST.fullmatch(check_digest(text))
    except Refusal:
        assert not DIGEST.fullmatch(text)
    with pytest.raises(Refusal):
        check_digest(D + "\n")
