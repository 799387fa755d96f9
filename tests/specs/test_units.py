"""Durations, sizes, numbers and command words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs import units

SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("10s", 10),
        ("1m30s", 90),
        ("1h1h", 7200),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("2d", 172_800),
        ("1w2d", 777_600),
        ("-5s", -5),
        ("+5s", 5),
        ("100ms", 0.1),
        ("3us", 0.000_003),
        ("3\u00b5s", 0.000_003),
    ],
)
def test_durations(text, seconds):
    assert units.parse_duration(text) == round(seconds * SECOND)


@pytest.mark.parametrize("text", ["", "90", "5 s", "1y", "s", ".s", "-", "1h-5m", "99999999999h"])
def test_refused_durations(text):
    with pytest.raises(ValueError, match=r"duration|unit"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (90, "1m30s"),
        (86_400, "24h0m0s"),
        (1.5, "1.5s"),
        (0.25, "250ms"),
        (0.000_0015, "1.5\u00b5s"),
        (-5, "-5s"),
    ],
)
def test_durations_are_printed_like_go(seconds, text):
    assert units.format_duration(round(seconds * SECOND)) == text


@given(st.integers(-(10**18), 10**18))
def test_a_printed_duration_reads_back(nanoseconds):
    assert units.parse_duration(units.format_duration(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024),
        ("-1", -1),
        ("1k", 1024),
        ("1kb", 1024),
        ("1KiB", 1024),
        ("1.5g", 3 << 29),
        ("10 mb", 10 << 20),
        ("2t", 2 << 40),
        ("1b", 1),
        (".5m", 1 << 19),
        ("12_0k", 120 << 10),
    ],
)
def test_sizes(text, size):
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "1x", "1bb", "1kib2", "-1k", "1  g x", "60%", "1e400k"])
def test_refused_sizes(text):
    with pytest.raises(ValueError, match=r"size|unit|number"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (1.0, "1"),
        (1.10, "1.1"),
        (1e5, "100000"),
        (1e6, "1e+06"),
        (1234567.0, "1.234567e+06"),
        (1e-5, "1e-05"),
        (0.0001, "0.0001"),
        (-0.0, "-0"),
        (123456789012345678901.0, "1.2345678901234568e+20"),
    ],
)
def test_numbers_become_the_text_compose_makes_of_them(value, text):
    assert units.format_number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_text_reads_back(value):
    assert float(units.format_number(value)) == value


@pytest.mark.parametrize(("value", "short"), [(0.1, 0.1), (1.0, 1), (1.23456789, 1.2345679)])
def test_float32(value, short):
    assert units.float32(value) == short


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  ", []),
        ("a 'b c' \"d e\"", ["a", "b c", "d e"]),
        ("a\\ b", ["a b"]),
        ("'' x", ["", "x"]),
        ("'a'\"b\"", ["ab"]),
        ("echo $HOME", ["echo", "$HOME"]),
        ("a; b", ["a"]),
        ("run 2>x", ["run"]),
        ("echo $(date now)", ["echo", "$(date now)"]),
        ("`a b` c", ["`a b`", "c"]),
        ("a\nb\tc", ["a", "b", "c"]),
    ],
)
def test_command_words(line, words):
    assert units.split_words(line) == words


@pytest.mark.parametrize("line", ["'a", '"a', "a\\", "x (y)", "`a", "$(a"])
def test_unclosed_commands_are_refused(line):
    with pytest.raises(ValueError, match=r"closed|quoted"):
        units.split_words(line)


@given(st.text(alphabet="ab '\"\\$()`;&|<>12\n", max_size=12))
def test_splitting_gives_words_or_a_sentence(line):
    try:
        words = units.split_words(line)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either outcome is fine, a crash is not
    else:
        assert all(isinstance(word, str) for word in words)


@given(st.text(max_size=12))
def test_no_text_crashes_a_parser(text):
    for parse in (units.parse_duration, units.parse_size, units.parse_int, units.parse_float):
        try:
            parse(text)
        except ValueError as error:
            assert str(error)  # noqa: PT017 - a sentence for the user
