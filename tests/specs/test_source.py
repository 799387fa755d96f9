"""YAML as Compose reads it: scalars, keys, merge keys, aliases, documents, broken text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.compose.reading.source import MAX_DEPTH, parse, resolve
from specs.compose.reading.tree import Timestamp, plain
from specs.findings import Findings


def read(text):
    findings = Findings()
    documents = parse(text, "f.yaml", findings)
    assert not findings.errors, findings.errors
    return plain(documents[0].tree)


def problem(text):
    findings = Findings()
    parse(text, "f.yaml", findings)
    assert findings.errors
    return findings.errors[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("y", "y"),
        ("True", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("22:22", "22:22"),
        ("1:30:00", "1:30:00"),
        ("10", 10),
        ("+5", 5),
        ("-0x1F", -31),
        ("0b11", 3),
        ("0o17", 15),
        ("017", 15),
        ("08", 8.0),
        ("1_000", 1000),
        ("0x_1", 1),
        ("_1", "_1"),
        ("1e3", 1000.0),
        ("12e03", 12000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("1.2.3", "1.2.3"),
        ("0.1e", "0.1e"),
        ("1e400", "1e400"),
        ("99999999999999999999", 1e20),
        ("=", "="),
        ("2020-13-01", "2020-13-01"),
        ("nginx", "nginx"),
    ],
)
def test_plain_scalars(text, value):
    result = resolve(text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("2020-1-2", "2020-01-02 00:00:00 +0000 UTC"),
        ("2001-12-14 21:59:43.10", "2001-12-14 21:59:43.1 +0000 UTC"),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43.1 -0500 -0500"),
    ],
)
def test_unquoted_dates_are_timestamps(text, printed):
    value = resolve(text)
    assert isinstance(value, Timestamp)
    assert value.printed == printed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("!!str 3", "3"),
        ("!!int '3'", 3),
        ("!!float 1", 1.0),
        ("!!null ''", None),
        ("!!binary aGk=", "hi"),
        ("! 3", "3"),
        ("!custom 3", "3"),
        ("'3'", "3"),
    ],
)
def test_tags_and_quotes(text, value):
    assert read(f"a: {text}") == {"a": value}


@pytest.mark.parametrize(
    "text", ["!!int 1.5", "!!bool yes", "!!binary '%'", ".inf", "-.INF", ".nan"]
)
def test_scalars_that_cannot_be(text):
    assert problem(f"a: {text}").position.column == 4


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("b: &b {x: 1}\na: {<<: *b, y: 2}", {"x": 1, "y": 2}),
        ("b: &b {x: 1}\na: {x: 0, <<: *b}", {"x": 0}),
        ("b: &b {x: 1}\nc: &c {x: 2, z: 3}\na: {<<: [*b, *c]}", {"x": 1, "z": 3}),
        ("b: &b {x: 1}\nl: &l [*b]\na: {<<: *l}", {"x": 1}),
        ("b: &b {x: {p: 1}}\na: {<<: *b, x: {q: 2}}", {"x": {"q": 2}}),
        ("a: {<<: []}", {}),
        ("b: &b {x: 1}\na: {!!merge <<: *b, y: 2}", {"x": 1, "y": 2}),
        ("b: &b {x: 1}\nc: &c {z: 3}\na:\n  !!merge <<: [*b, *c]\n  x: 0", {"x": 0, "z": 3}),
        ("b: &b {x: 1}\na: {!!str <<: 1}", {"<<": 1}),
        ("a: {'<<': 1}", {"<<": 1}),
    ],
)
def test_merge_keys(text, tree):
    assert read(text)["a"] == tree


def test_a_merge_key_wants_mappings():
    assert "<<" in problem("a: {<<: 1}").message


@pytest.mark.parametrize(
    ("text", "word", "line", "column"),
    [
        ("a: 1\na: 2", "already used at line 1", 2, 1),
        ("x: {a: 1, 'a': 2}", "already used", 1, 11),
        ("b: &b {}\na: {<<: *b, <<: *b}", "already used", 2, 13),
        ("a: {1: x}", "not a string", 1, 5),
        ("a: {true: x}", "not a string", 1, 5),
        ("a: {null: x}", "not a string", 1, 5),
        ("a: {2020-01-01: x}", "not a string", 1, 5),
        ("a: {[x]: y}", "not a string", 1, 5),
        ("a: &a [*a]", "itself", 1, 8),
        ("a: *nope", "no anchor", 1, 4),
        ("a:\n\tb: 1", "cannot start any token", 2, 1),
        ("a: b: c", "mapping values", 1, 5),
        ("a:\n  b: 1\n c: 2", "did not find expected key", 3, 2),
        ("a: @x", "cannot start any token", 1, 4),
        ('a: "x', "scalar", 1, 4),
    ],
)
def test_refused_with_position(text, word, line, column):
    found = problem(text)
    assert word in found.message
    assert (found.position.line, found.position.column) == (line, column)


def test_duplicate_keys_are_told_all_at_once():
    findings = Findings()
    parse("a: 1\na: 2\nb: {c: 1, c: 2}\n", "f.yaml", findings)
    assert [str(error.position) for error in findings.errors] == ["f.yaml:2:1", "f.yaml:3:11"]


def test_billion_laughs_are_refused_quickly():
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert "excessive aliasing" in problem("\n".join(lines)).message


def test_many_uses_of_one_small_anchor_are_fine():
    uses = "\n".join(f"  s{n}: {{<<: *a, k: {n}, l: {n}, m: {n}}}" for n in range(400))
    assert len(read(f"x: &a {{p: 1, q: 2}}\ns:\n{uses}")["s"]) == 400


def test_too_deep_nesting_is_refused():
    assert "nested" in problem("a: " + "[" * (MAX_DEPTH + 5)).message


def test_documents_are_read_in_order():
    findings = Findings()
    documents = parse("---\na: 1\n---\na: 2\n...\n", "f.yaml", findings)
    assert [plain(document.tree) for document in documents] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("text", [b"\xff\xfe\xff", b"a: \x00", b"\x80abc", b"a: b\x01"])
def test_bytes_that_are_no_text(text):
    assert problem(text).code == "yaml"


def test_a_byte_order_mark_is_skipped():
    assert read("\ufeffa: 1".encode()) == {"a": 1}


def test_tags_name_what_they_cut():
    findings = Findings()
    document = parse(
        "x: &x !reset {}\nservices:\n  a:\n    ports: !override ['1']\n    env: *x\n"
        "    list: [1, !reset 2, 3]\n  b: !reset\n",
        "f.yaml",
        findings,
    )[0]
    assert document.cuts == [
        ("x",),
        ("services", "a", "ports"),
        ("services", "a", "env"),
        ("services", "a", "list", "1"),
        ("services", "b"),
    ]
    assert plain(document.tree) == {"services": {"a": {"ports": ["1"], "list": [1, 3]}}}


def test_a_tag_inside_a_merged_mapping_counts_where_it_is_merged():
    findings = Findings()
    document = parse("x: &x {ports: !reset []}\ns: {<<: *x, k: 1}\n", "f.yaml", findings)[0]
    assert ("s", "ports") in document.cuts


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#,? \n\t<0", max_size=40))
def test_no_text_crashes_the_reader(text):
    findings = Findings()
    for document in parse(text, "f.yaml", findings):
        plain(document.tree)
