"""`corral lint` can be read: one line per kind with a count, and nothing that is not so."""

import pytest

from specs.compose.load import examine
from specs.lint.report import lint
from specs.problems import Position, Problem, gathered, once


def said(text, tmp_path, **options):
    """Return what lint says of a file."""
    project, problems = examine(
        ["-"], stdin=text, cwd=str(tmp_path), environ={}, project_name="demo", **options
    )
    return lint(project, problems).problems


def services(count, body):
    lines = "\n".join(f"  s{index}: {body.replace('N', str(index))}" for index in range(count))
    return f"services:\n{lines}\n"


# what is written -> (how often it is found, the one line about it)
KINDS = {
    "floating tags": (
        services(12, "{image: imgN}"),
        12,
        (
            "12 images name no version: img0, img1, img2, img3 and 8 more"
            " (12 times, in services s0, s1, s2, s3 and 8 more)"
        ),
    ),
    "one floating tag": (
        services(1, "{image: web}"),
        1,
        "web names no version: what it is changes without a change here",
    ),
    "the same floating tag": (
        services(3, "{image: web}"),
        3,
        (
            "web names no version: what it is changes without a change here"
            " (3 times, in services s0, s1, s2)"
        ),
    ),
    ":z": (
        services(7, "{image: 'a:1', volumes: ['/src:/dst:z', '/a:/b:Z']}"),
        14,
        "`selinux` has no meaning here (14 times, in services s0, s1, s2, s3 and 3 more)",
    ),
    "an unset variable": (
        services(6, "{image: 'a:1$TAG'}"),
        6,
        (
            "the variable TAG is not set and becomes an empty string"
            " (6 times, in services s0, s1, s2, s3 and 2 more)"
        ),
    ),
    "waits for health": (
        services(4, "{image: 'a:1', depends_on: {db: {condition: service_healthy}}}")
        + "  db: {image: 'b:1'}\n",
        4,
        (
            "s0 waits until db is healthy, but has no healthcheck here"
            " (and 3 more like it: services s0, s1, s2, s3)"
        ),
    ),
    "a key that is not honoured yet": (
        services(5, "{image: 'a:1', storage_opt: {size: 1g}}"),
        5,
        "`storage_opt` is not honoured yet (5 times, in services s0, s1, s2, s3, s4)",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_one_line_with_a_count(tmp_path, kind):
    text, count, line = KINDS[kind]
    found = said(text, tmp_path)
    assert len(found) == count  # tools still get each
    assert [problem.message for problem in gathered(found)] == [line]


def test_an_obsolete_version_in_several_files_is_one_line(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.yaml").write_text("version: '3'\nservices: {a: {image: 'x:1'}}\n")
    _, problems = examine(
        ["a.yaml", "b.yaml", "c.yaml"], cwd=str(tmp_path), environ={}, project_name="demo"
    )
    lines = [problem.message for problem in gathered(problems)]
    assert lines == ["version is obsolete and ignored (3 times)"]


def test_different_things_stay_apart(tmp_path):
    text = services(2, "{image: 'a:1$TAGN', storage_opt: {size: 1g}}")
    assert len(gathered(said(text, tmp_path))) == 3


def test_errors_are_never_gathered():
    problems = [
        Problem("wrong", path=f"services.s{line}.x", position=Position("f", line, 1))
        for line in range(3)
    ]
    assert gathered(problems) == problems


ANCHORS = {
    "a mapping": ("x-a: &a {restartt: always}", "s{n}: {{<<: *a, image: 'x:1'}}"),
    "a value": ("x-a: &a 77x", "s{n}: {{image: 'x:1', mem_limit: *a}}"),
    "a list": ("x-a: &a ['1:2:3:4:5']", "s{n}: {{image: 'x:1', ports: *a}}"),
    "a nested key": ("x-a: &a {interval: 5 parsecs}", "s{n}: {{image: 'x:1', healthcheck: *a}}"),
    "a refused key": ("x-a: &a {gpus: all}", "s{n}: {{<<: *a, image: 'x:1'}}"),
    "a variable": ("x-a: &a {A: '${B?set it}'}", "s{n}: {{image: 'x:1', environment: *a}}"),
}


@pytest.mark.parametrize("kind", ANCHORS)
def test_an_error_in_an_anchor_is_told_once(tmp_path, kind):
    head, body = ANCHORS[kind]
    lines = "\n".join("  " + body.format(n=number) for number in range(5))
    found = [p for p in said(f"{head}\nservices:\n{lines}\n", tmp_path) if p.severity == "error"]
    assert len(found) == 1, [str(problem) for problem in found]
    assert found[0].position.line == 1


def test_the_same_mistake_at_two_places_is_told_twice(tmp_path):
    found = said(services(2, "{image: 'x:1', restartt: always}"), tmp_path)
    assert len(found) == len(once(found)) == 2


# a service's body -> the code lint warns with, "" for nothing
RULES = [
    ("environment: {A: 64 160k}", ""),
    ("environment: {A: 1.10}", "unquoted-number"),
    ("environment: {A: 1.10 }  # a version", "unquoted-number"),
    ("environment: {A: 1.10 beta}", ""),
    ("environment: {A: 10.0.0.1}", ""),
    ("environment: {A: 0x10 items}", ""),
    ("environment: {A: '1.10'}", ""),
    ("environment: {A: 110}", ""),
    ('entrypoint: ["bash", "-c"]', ""),
    ('{entrypoint: ["bash", "-c"], command: ["npm start"]}', ""),
    ('{entrypoint: ["/bin/sh", "-ec"], command: ["a && b"]}', ""),
    ('{entrypoint: ["bash", "-o", "pipefail", "-lc"], command: ["a | b"]}', ""),
    ('{entrypoint: bash -c, command: ["npm start"]}', ""),
    ('{entrypoint: ["tini", "--"], command: ["npm start"]}', "one-word"),
    ('command: ["npm start"]', "one-word"),
    ('{entrypoint: ["bash", "-c"], command: a && b}', "no-shell"),
    ("command: sh -c 'a && b'", ""),
    ("configs: [{source: c, mode: 365}]", ""),  # 0555
    ("configs: [{source: c, mode: 420}]", ""),  # 0644
    ("configs: [{source: c, mode: 256}]", ""),  # 0400
    ("configs: [{source: c, mode: 511}]", ""),  # 0777
    ("configs: [{source: c, mode: 0440}]", ""),
    ("configs: [{source: c, mode: '440'}]", ""),
    ("configs: [{source: c, mode: 440}]", "decimal-mode"),
    ("configs: [{source: c, mode: 400}]", "decimal-mode"),
    ("configs: [{source: c, mode: 644}]", "decimal-mode"),
    ("configs: [{source: c, mode: 500}]", "decimal-mode"),
]


@pytest.mark.parametrize(("body", "code"), RULES)
def test_what_is_right_is_not_warned_of(tmp_path, body, code):
    body = body.removeprefix("{").removesuffix("}") if body.startswith("{") else body
    keys = [f"    {line.strip()}" for line in body.split(", command: ")]
    if len(keys) == 2:
        keys[1] = "    command: " + keys[1].strip()
    user = "" if "configs" in body else "  other: {image: 'x:1', configs: [c]}\n"
    text = "services:\n  a:\n    image: 'x:1'\n" + "\n".join(keys) + "\n" + user
    found = said(f"{text}configs: {{c: {{content: x}}}}\n", tmp_path)
    assert [problem.code for problem in found] == ([code] if code else [])


@pytest.mark.parametrize(
    "body",
    [
        "environment: {API_KEY: 0644}",
        "environment: ['DB_PASSWORD=\"0644\"']",
        "environment: ['DB_PASSWORD= 0644']",
    ],
)
def test_no_finding_repeats_a_secret_value(body, tmp_path):
    found = said(services(1, f"{{image: 'x:1', {body}}}"), tmp_path)
    told = [str(problem) for problem in found if "environment" in problem.path]
    assert told
    assert not any("0644" in text or "420" in text for text in told), told
