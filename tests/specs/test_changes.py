"""What differs between two versions of a stack, in the words of its file."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from specs.autoscale import AutoscaleSpec
from specs.changes import changes
from specs.compile.stack import compile_stack
from specs.schedule import ScheduleSpec
from specs.stack import (
    BuildSpec,
    ContentSpec,
    FileRef,
    Healthcheck,
    NetworkSpec,
    ServiceSpec,
    StackSpec,
    TaskSpec,
    VolumeSpec,
)

WEB = "image: web:1\nenvironment: {LEVEL: info}\n"
# The service before and after, and the lines that say what differs.
CASES: dict[tuple[str, str], list[str]] = {
    (WEB, WEB): [],
    (WEB, "image: web:2\nenvironment: {LEVEL: info}"): ["~ image: web:1 -> web:2"],
    (WEB, "image: web:1\nenvironment: {LEVEL: debug}"): ["~ environment.LEVEL: info -> debug"],
    (WEB, "image: web:1\nenvironment: {LEVEL: info, MORE: x}"): ["+ environment.MORE: x"],
    (WEB, "image: web:1"): ["- environment.LEVEL: info"],
    (
        "image: a\nenvironment: {DB_PASSWORD: old}",
        "image: a\nenvironment: {DB_PASSWORD: new}",
    ): ["~ environment.DB_PASSWORD: another value"],
    ("image: a\nports: ['80:80']", "image: a\nports: ['8080:80', '127.0.0.1:53:53/udp']"): [
        "+ ports.8080:80: 8080:80",
        "+ ports.127.0.0.1:53:53/udp: 127.0.0.1:53:53/udp",
        "- ports.80:80: 80:80",
    ],
    ("image: a", "image: a\nhealthcheck: {test: [CMD, curl, x], interval: 5s}"): [
        "+ healthcheck: CMD curl x"
    ],
    (
        "image: a\nhealthcheck: {test: [CMD, x], interval: 5s}",
        "image: a\nhealthcheck: {test: [CMD, x], interval: 1m}",
    ): ["~ healthcheck.interval: 5 s -> 60 s"],
    ("image: a", "image: a\nstop_grace_period: 90s"): ["~ stop_grace_period: 10 s -> 90 s"],
    ("image: a", "image: a\nmem_limit: 64m"): ["+ deploy.resources.limits.memory: 64 MiB"],
    ("image: a", "image: a\ndeploy: {replicas: 3}"): ["~ deploy.replicas: 1 -> 3"],
    (
        "image: a\ncommand: [serve, --api-token, abc]",
        "image: a\ncommand: [serve, --api-token, def]",
    ): ["~ command: another value"],
    ("image: a\nvolumes: ['data:/x']", "image: a\nvolumes: ['data:/x:ro']"): [
        "~ volumes./x: data:/x -> data:/x:ro"
    ],
    ("image: a", "image: a\ndepends_on: [b]"): [
        "+ depends_on.b.condition: service_started",
        "+ depends_on.b.restart: no",
        "+ depends_on.b.required: yes",
    ],
    (
        "image: a",
        "image: a\ndepends_on: [b]\nx-corral: {update: blue-green, depends_deadline: 2m}",
    ): [
        "+ depends_on.b.condition: service_started",
        "+ depends_on.b.restart: no",
        "+ depends_on.b.required: yes",
        "+ x-corral.update: blue-green",
        "+ x-corral.keep_old: 600 s",
        "+ x-corral.depends_deadline.b: 120 s",
    ],
    ("image: a", "image: a\nx-corral: {canary: {replicas: 2, promote: after 30s}}"): [
        "+ x-corral.canary.replicas: 2",
        "+ x-corral.canary.promote: after 30 s",
    ],
    ("image: a", "image: a\ndeploy: {update_config: {order: start-first}}"): [
        "~ deploy.update_config.order: stop-first -> start-first"
    ],
}


@pytest.mark.parametrize(("old", "new"), CASES)
def test_what_differs_of_a_service(folder, old, new):
    def compiled(body: str):
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        project = folder.load(
            f"name: demo\nservices:\n  web:\n{lines}  b: {{image: b}}\nvolumes: {{data: }}\n"
        )
        spec, _ = compile_stack(project.model, project.origins, "demo")
        return spec, project.origins

    before, after = compiled(old), compiled(new)
    found = changes(before[0], after[0], origins=after[1])
    assert [f"{change.sign} {change}" for change in found] == CASES[old, new]
    assert all(change.name == "web" for change in found)
    assert all(change.position is not None for change in found)


def test_a_position_is_that_of_the_very_key(folder):
    before, _ = compile_stack(
        folder.load("name: d\nservices:\n  web:\n    image: a\n").model, {}, "d"
    )
    project = folder.load(
        "name: d\nservices:\n  web:\n    image: a\n    environment:\n      - LEVEL=x\n"
        "    ports:\n      - '80:80'\n      - '81:81'\n"
    )
    after, _ = compile_stack(project.model, project.origins, "d")
    found = changes(before, after, origins=project.origins)
    lines = {str(change): change.position.line for change in found}
    assert lines == {"environment.LEVEL: x": 6, "ports.80:80: 80:80": 8, "ports.81:81: 81:81": 9}


def test_what_comes_and_goes_as_a_whole():
    one = ServiceSpec(name="web", task=TaskSpec(image="web:1"))
    two = ServiceSpec(name="db", task=TaskSpec(image="db:1"))
    before = StackSpec(name="s", services={"web": one}, volumes={"v": VolumeSpec(name="s_v")})
    after = StackSpec(name="s", services={"db": two}, networks={"n": NetworkSpec(name="s_n")})
    found = [(c.sign, c.section, c.name, c.old, c.new) for c in changes(before, after)]
    assert found == [
        ("+", "services", "db", "", "db:1"),
        ("-", "services", "web", "web:1", ""),
        ("+", "networks", "n", "", "s_n"),
        ("-", "volumes", "v", "s_v", ""),
    ]
    assert [c.sign for c in changes(None, after)] == ["+", "+"]
    assert [c.sign for c in changes(before, None)] == ["-", "-"]


def test_images_differ_by_digest_though_the_name_is_the_same():
    one = ServiceSpec(name="web", task=TaskSpec(image="web:1"))
    spec = StackSpec(name="s", services={"web": one})
    digests = {"web": "sha256:" + "a" * 64}, {"web": "sha256:" + "b" * 64}
    (found,) = changes(spec, spec, images=digests)
    assert str(found) == "image: web:1 (aaaaaaaaaaaa) -> web:1 (bbbbbbbbbbbb)"
    assert found.replaces
    assert changes(spec, spec, images=(digests[0], {})) == ()  # not known: by the name
    assert changes(spec, spec, images=(digests[0], digests[0])) == ()


def test_secrets_differ_by_their_version_only():
    def spec(version: str) -> StackSpec:
        ref = FileRef(source="pw", target="/run/secrets/pw", content=version)
        task = TaskSpec(image="web:1", secrets=(ref,))
        return StackSpec(
            name="s",
            services={"web": ServiceSpec(name="web", task=task)},
            secrets={"pw": ContentSpec(name="s_pw", content=version)},
        )

    found = changes(spec("s-old"), spec("s-new"))
    assert [str(c) for c in found] == [
        "secrets.pw: /run/secrets/pw (version s-old) -> /run/secrets/pw (version s-new)",
        "version: s-old -> s-new",
    ]


def _other(value: Any) -> Any:
    """Return another value than this one, of the same kind as far as that matters here."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    return None


SPECIAL = {
    "healthcheck": Healthcheck(test=("CMD", "x")),
    "build": BuildSpec(context="/x"),
    "network_mode": "none",
    "autoscale": AutoscaleSpec(most=5, cpu=0.7),
    "schedule": ScheduleSpec(cron="0 2 * * *"),
}


def _values(model: type, field: str) -> Any:
    """Return a value of a field that is not its default."""
    import typing

    default = model(**({"image": "i"} if model is TaskSpec else _NEEDED[model])).__dict__[field]
    if field in SPECIAL:
        return SPECIAL[field]
    annotation = typing.get_type_hints(model)[field]
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    for tried in (
        _other(default),
        7,
        "word",
        ["word"],
        {"word": "word"},
        [["word", "word"]],
        *({**base} for base in _OBJECTS),
        *([base] for base in _OBJECTS),
        *({"word": base} for base in _OBJECTS),
        *typing.get_args(annotation),
    ):
        try:
            found = adapter.validate_python(tried)
        except ValueError:
            continue
        if found != default:
            return found
    raise AssertionError(f"no other value of {model.__name__}.{field}")


_OBJECTS = (
    {"target": 80},
    {"type": "bind", "target": "/x"},
    {"source": "a", "target": "/b"},
    {"network": "n"},
    {"soft": 1, "hard": 2},
    {"command": ["a"]},
    {"condition": "service_healthy"},
    {"condition": "none"},
    {"limits": {"cpus": 1}},
    {"driver": "none"},
    {"constraints": ["a==b"]},
    {"order": "start-first"},
    {"context": "/x"},
)
_NEEDED = {
    TaskSpec: {"image": "i"},
    ServiceSpec: {"name": "web", "task": TaskSpec(image="i")},
    NetworkSpec: {"name": "n"},
    VolumeSpec: {"name": "n"},
    ContentSpec: {"name": "n"},
}


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (model, field)
        for model in _NEEDED
        for field in model.model_fields
        if (model, field) not in {(ServiceSpec, "name"), (ServiceSpec, "task")}
    ],
    ids=lambda v: v if isinstance(v, str) else v.__name__,
)
def test_no_field_that_differs_is_left_out(model, field):
    before = model(**_NEEDED[model])
    after = before.model_copy(update={field: _values(model, field)})
    if model is TaskSpec:
        before, after = (ServiceSpec(name="web", task=task) for task in (before, after))
    section = {
        ServiceSpec: "services",
        NetworkSpec: "networks",
        VolumeSpec: "volumes",
        ContentSpec: "secrets",
    }[type(before)]
    one, two = (StackSpec(name="s", **{section: {"web": value}}) for value in (before, after))
    if (model, field) == (TaskSpec, "image_digest"):
        one = StackSpec(
            name="s",
            services={
                "web": before.model_copy(update={"task": TaskSpec(image="i", image_digest="d")})
            },
        )
    there, back = changes(one, two), changes(two, one)
    assert there, f"{model.__name__}.{field} differs, and nothing is said"
    assert back
    if model is TaskSpec:
        assert all(change.replaces for change in there)
