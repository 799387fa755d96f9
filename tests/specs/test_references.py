"""Image references: one grammar, refused wherever a Compose file names an image."""

from __future__ import annotations

import pytest

from specs.compile.stack import compile_stack
from specs.compose.load import examine
from specs.problems import SpecError
from specs.references import built_name, reference_fault, split, tag_fault

D = "sha256:" + "a1" * 32

# After the distribution project's grammar and its tests: what is a reference, and what is not.
FITS = [
    *("nginx", "nginx:1.28", "team/app", "a/b/c/d", "a.b/c", "a__b", "a-----b", "0", "a1.b2_c3-d4"),
    *("localhost/app", "localhost:5000/a:v1", "registry.example.com:5000/x", "[::1]:5000/x:1"),
    *("Quay.example/x", "xn--n3h.com/myimage:xn--n3h.com", "x:V1.0-rc_2", "x:" + "t" * 128, "x:_"),
    *(f"nginx@{D}", f"nginx:1@{D}", f"localhost:5000/a/b@{D}", "a/" * 100 + "b", "scratch"),
    "a1" * 33,
]
REFUSED = {
    "": "it has no name",
    ":1": "it has no name",
    f"@{D}": "it has no name",
    "x@@y": "is not a digest",
    "x@": "is not a digest",
    "x@sha256:abc": "64 lower-case hex digits",
    "x@md5:" + "a" * 32: "sha256",
    "x@" + D.upper(): "is not a digest",
    "Nginx": "lower case: 'nginx'",
    "team/App:1": "lower case: 'team/app'",
    "example.com/A": "lower case",
    "nginx:": "the tag behind ':' is empty",
    f"nginx:@{D}": "the tag behind ':' is empty",
    "nginx:a b": "is not a tag",
    "nginx:-a": "is not a tag",
    "nginx:.a": "is not a tag",
    "nginx:1:2": "is not a tag",
    "nginx:\u00e9": "is not a tag",
    "nginx:" + "t" * 129: "longer than 128",
    "a" * 300: "longer than 255",
    "a/" * 130 + "b": "longer than 255",
    "a1" * 32: "an image's id",
    "a//b": "is not a name",
    "a/": "is not a name",
    "/a": "is not a name",
    "a..b": "is not a name",
    "a___b": "is not a name",
    "a-": "is not a name",
    "_a": "is not a name",
    "--help": "is not a name",
    " nginx": "is not a name",
    "nginx\n": "is not a name",
    "my image": "is not a name",
    "\u00e9": "is not a name",
    "-x.example/y": "not the host of a registry",
    "a_b.example:5000/x": "not the host of a registry",
    "https://example.com/x": "leave out the scheme",
    "docker://nginx": "leave out the scheme",
    "example.com:port/x": "not the host of a registry",
}


@pytest.mark.parametrize("text", FITS)
def test_what_names_an_image(text):
    assert reference_fault(text) == ""


@pytest.mark.parametrize("text", REFUSED)
def test_what_names_none_is_refused_in_words(text):
    why = reference_fault(text)
    assert REFUSED[text] in why
    assert why.isprintable()
    assert why.isascii()
    assert len(why) < 250


def test_what_is_built_gets_its_digest_by_being_built():
    assert tag_fault("app:1") == ""
    assert "which only the build itself can give" in tag_fault(f"app:1@{D}")
    assert tag_fault("x@@y") == reference_fault("x@@y")
    assert split(f"nginx:1@{D}")[0] == ("docker.io", "library/nginx", "1", D)


@pytest.mark.parametrize(
    ("stack", "service", "name"),
    [
        ("app", "web", "app-web"),
        ("app", "Web", "app-web"),
        ("my_", "web", "my-web"),
        ("app", "_x", "app-x"),
        ("app", "a..b", "app-a-b"),
        ("app", "a.b", "app-a.b"),
        ("app", "-", "app"),
        ("app", "a___B-", "app-a-b"),
    ],
)
def test_a_build_without_image_has_a_name_that_is_one(stack, service, name):
    assert built_name(stack, service) == name
    assert reference_fault(name) == ""


# where an image is named; the last two name none to corral
PLACES = {
    "image: {}": "5:12",
    'image: "{}"': "5:12",
    "image: *bad": "2:8",
    "build: {{context: ., tags: [ok, '{}']}}": "5:36",
    "build: .\n    image: {}": "6:12",
    "build: {{context: ., cache_from: ['{}']}}": "",
    "x-image: {}": "",
}


@pytest.mark.parametrize("line", PLACES)
@pytest.mark.parametrize("text", ["x@@y", "Upper", "x:", "a" * 300])
def test_a_wrong_image_is_refused_where_it_is_written(line, text, tmp_path):
    written = line.format(text)
    if text == "x:" and '"' not in line and "'" not in line:
        written = line.format('"x:"')
    image = "" if "image: " in line.replace("x-image", "") or "build" in line else "image: ok\n    "
    file = tmp_path / "c.yaml"
    file.write_text(
        f"name: app\nx-bad: &bad '{text}'\nservices:\n  a:\n    {written}\n    {image}init: true\n"
    )
    project, found = examine([str(file)], environ={}, cwd=str(tmp_path))
    assert not [problem for problem in found if problem.severity == "error"]
    try:
        compile_stack(project.model, project.origins, "app")
        refused = []
    except SpecError as error:
        refused = [problem for problem in error.problems if problem.severity == "error"]
    place = PLACES[line]
    assert len(refused) == bool(place)
    for problem in refused:
        assert str(problem.position).startswith(f"{file}:{place}")
        assert "is not an image reference" in problem.message
        assert problem.hint


def test_the_name_of_what_is_built_has_no_digest():
    service = {"image": f"app@{D}", "build": {"context": "."}}
    with pytest.raises(SpecError, match="only the build itself can give"):
        compile_stack({"services": {"a": service}}, {}, "app")


def test_an_unset_variable_is_thought_of(tmp_path):
    (tmp_path / "c.yaml").write_text("services: {a: {image: 'x:${NOT_SET}'}}")
    project, _ = examine([str(tmp_path / "c.yaml")], environ={}, cwd=str(tmp_path))
    with pytest.raises(SpecError, match="is a variable not set"):
        compile_stack(project.model, project.origins, "app")
