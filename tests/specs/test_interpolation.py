"""Variables in values: operators, nesting, escapes, casts, where they come from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.compose.reading.interpolate import Substitution, TemplateError
from specs.compose.reading.variables import Environment

VALUES = {"FOO": "foo", "BAR": "b ar", "EMPTY": ""}


def put(template):
    return Substitution(Environment(VALUES)).text(template)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("$FOO", "foo"),
        ("${FOO}", "foo"),
        ("$FOO-$BAR", "foo-b ar"),
        ("a${FOO}b${FOO}", "afoobfoo"),
        ("$$FOO", "$FOO"),
        ("$$$FOO", "$foo"),
        ("cost: 5$", "cost: 5$"),
        ("$1 $.", "$1 $."),
        ("$UNSET|", "|"),
        ("${UNSET:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${UNSET-d}", "d"),
        ("${FOO:-d}", "foo"),
        ("${FOO:+r}", "r"),
        ("${EMPTY:+r}", ""),
        ("${EMPTY+r}", "r"),
        ("${UNSET+r}", ""),
        ("${FOO?m}", "foo"),
        ("${EMPTY?m}", ""),
        ("${UNSET-a?b}", "a?b"),
        ("${UNSET:-a-b}", "a-b"),
        ("${UNSET:-${FOO}}", "foo"),
        ("${UNSET:-${EMPTY:-${BAR}}}", "b ar"),
        ("${UNSET:-$$x}", "$x"),
        ('${UNSET:-{"a":1}}', '{"a":1}'),
        ("${UNSET:-a} ${FOO}", "a foo"),
        ("${FOO:+${BAR}}-${UNSET:-x}", "b ar-x"),
        ("${FOO:-${UNSET?never looked at}}", "foo"),
        ("${UNSET+${NOPE?never looked at}}", ""),
    ],
)
def test_substitution(template, text):
    assert put(template) == text


@pytest.mark.parametrize(
    "template", ["${", "${}", "${ FOO}", "${FOO!}", "${FOO", "${1}", "${FOO/a/b}"]
)
def test_bad_templates(template):
    with pytest.raises(TemplateError, match="invalid interpolation format"):
        put(template)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("${UNSET?}", "required variable UNSET is missing a value"),
        ("${UNSET:?set it to $FOO}", "UNSET is missing a value: set it to foo"),
        ("${EMPTY:?no}", "EMPTY is missing a value: no"),
        ("${UNSET:-${ALSO?why}}", "ALSO is missing a value: why"),
    ],
)
def test_required_variables(template, message):
    with pytest.raises(TemplateError, match="missing a value") as caught:
        put(template)
    assert message in str(caught.value)


@given(st.text(alphabet="${}:-?+FOB x", max_size=24))
def test_interpolation_never_crashes(template):
    try:
        result = put(template)
    except TemplateError as error:
        assert str(error)  # noqa: PT017 - a sentence for the user
    else:
        assert isinstance(result, str)


@given(st.text(max_size=30))
def test_doubled_dollars_give_the_text_back(text):
    assert put(text.replace("$", "$$")) == text


@given(st.integers(1, 400))
def test_deep_nesting_ends(depth):
    template = "${A:-" * depth + "x" + "}" * depth
    try:
        assert put(template) == "x"
    except TemplateError as error:
        assert "deep" in str(error)  # noqa: PT017 - beyond the limit


def test_values_only_never_keys(folder):
    project = folder.load("x-a: {$FOO: $FOO}\nservices: {}\n", env={"FOO": "f"})
    assert project.model["x-a"] == {"$FOO": "f"}


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("scale: ${N}", "scale", 3),
        ("cpus: '0.${N}'", "cpus", 0.3),
        ("tty: ${YES}", "tty", True),
        ("privileged: 'on'", "privileged", True),
        ("mem_limit: ${N}m", "mem_limit", 3 << 20),
        ("user: ${N}", "user", "3"),
        ("pids_limit: '${N}0'", "pids_limit", 30),
        ("attach: '${NO}'", "attach", False),
    ],
)
def test_typed_attributes_are_cast(folder, line, key, value):
    assert folder.web(line, env={"N": "3", "YES": "true", "NO": "n"})[key] == value


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("scale: ${NOPE}", "whole number"),
        ("cpus: much", "not a number"),
        ("tty: perhaps", "neither true nor false"),
        ("deploy: {replicas: two}", "whole number"),
        ("healthcheck: {retries: 1.5x}", "whole number"),
    ],
)
def test_casts_that_fail_are_told_with_their_place(folder, line, word):
    found = folder.refused(f"services:\n  web:\n    image: x\n    {line}\n")
    assert word in found[0].message
    assert found[0].position.line == 4


def test_unset_variables_are_warned_about_once_a_place(folder):
    project = folder.load("services: {web: {image: 'x:$TAG', labels: {a: '${TAG}'}}}\n")
    assert [warning.path for warning in project.warnings] == [
        "services.web.image",
        "services.web.labels.a",
    ]


def test_every_bad_value_is_told(folder):
    found = folder.refused("services:\n  a: {image: '${A?first}'}\n  b: {image: '${', scale: x}\n")
    assert [problem.path for problem in found] == [
        "services.a.image",
        "services.b.image",
        "services.b.scale",
    ]


def test_environment_and_env_file_are_never_a_source(folder):
    folder.write({"e.env": "A=1\n"})
    web = folder.web("environment: {A: set}\nenv_file: e.env\nlabels: {a: '${A-unset}'}\n")
    assert web["labels"] == {"a": "unset"}


def test_the_project_name_is_a_variable(folder):
    web = folder.web("labels: {n: '${COMPOSE_PROJECT_NAME}'}", project_name="other")
    assert web["labels"] == {"n": "other"}


def test_without_interpolation_values_stay_as_written(folder):
    web = folder.web(
        "ports: ['${P}:80']\nscale: ${N}\nlabels: {a: $X}\nstop_grace_period: ${T}",
        no_interpolate=True,
    )
    assert web["ports"] == ["${P}:80"]
    assert web["scale"] == "${N}"
    assert web["labels"] == {"a": "$X"}
    assert web["stop_grace_period"] == "${T}"


def test_without_interpolation_what_has_no_variable_is_still_checked(folder):
    text = "services: {web: {image: x, networks: [nope, '${N}'], scale: '${S}', cpus: '${C}'}}\n"
    found = folder.refused(text, no_interpolate=True)
    assert [problem.path for problem in found] == ["services.web.networks.nope"]
