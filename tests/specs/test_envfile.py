"""The syntax of .env and env_file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specs.compose.reading.envfile import EnvFile, EnvFileError, parse_raw

OUTER = {"OUT": "outer", "SHELL_X": "shell"}


def read(text, known=None):
    return EnvFile(text, OUTER.get, known).values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A=1", {"A": "1"}),
        ("A = 1 ", {"A": "1"}),
        ("A: 1", {"A": "1"}),
        ("export A=1", {"A": "1"}),
        ("export   A=1\nB=2", {"A": "1", "B": "2"}),
        ("A=", {"A": ""}),
        ("A=1 # note", {"A": "1"}),
        ("A=1#note", {"A": "1#note"}),
        ("# A=1\n\n  # more\nB=2", {"B": "2"}),
        ("A='$X #1'", {"A": "$X #1"}),
        ("A='it\\'s'", {"A": "it's"}),
        ("A='two\nlines'", {"A": "two\nlines"}),
        ('A="a\\nb\\t\\"c\\" \\\\ \\$X"', {"A": 'a\nb\t"c" \\ $X'}),
        ('A="\\0101\\x41"', {"A": "A\\x41"}),
        ("A=a\\nb", {"A": "a\\nb"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("\ufeffA=1", {"A": "1"}),
        ("OUT\n", {"OUT": "outer"}),
        ("NOPE\nB=1", {"B": "1"}),
        ("A.b-c_[0]=1", {"A.b-c_[0]": "1"}),
        ("\u00e9=1", {"\u00e9": "1"}),
        ("A=1\nB=$A-${A}", {"A": "1", "B": "1-1"}),
        ("A='x'\nB=\"$A\"\nC='$A'", {"A": "x", "B": "x", "C": "$A"}),
        ("B=${NOPE:-d}", {"B": "d"}),
        ("A=1\nA=2", {"A": "2"}),
        ("", {}),
    ],
)
def test_syntax(text, values):
    assert read(text) == values


def test_variables_outside_win_inside_a_file_but_not_over_its_own_lines():
    assert read("SHELL_X=over\nY=${SHELL_X}") == {"SHELL_X": "over", "Y": "shell"}


def test_earlier_files_are_known():
    assert read("B=$A", {"A": "before"}) == {"B": "before"}


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("A=1\nB C=2", 2, "space"),
        ("A=1\n@x=2", 2, "unexpected character '@'"),
        ("A='x", 1, "not closed"),
        ('A=1\n\nB="x\ny', 3, "not closed"),
        ("A=${", 1, "invalid interpolation"),
        ("A=1\nB=${C?must}", 2, "must"),
    ],
)
def test_errors_name_the_line(text, line, word):
    with pytest.raises(EnvFileError) as caught:
        read(text)
    assert caught.value.line == line
    assert word in str(caught.value)


def test_lines_are_remembered():
    assert EnvFile("A=1\n\n# c\nB='x\ny'\nC=2", OUTER.get).lines == {"A": 1, "B": 4, "C": 6}


def test_raw_takes_everything_literally():
    text = "# c\nA='x' # y\nB=$A\nOUT\nNOPE\n  C=1\n"
    assert parse_raw(text, OUTER.get) == {"A": "'x' # y", "B": "$A", "OUT": "outer", "C": "1"}


@pytest.mark.parametrize("text", ["=x", "A B=1"])
def test_raw_errors(text):
    with pytest.raises(EnvFileError):
        parse_raw(text, OUTER.get)


@given(st.text(alphabet="AB=:'\"\\n$ {}#\t\n\r-", max_size=40))
def test_no_text_crashes_the_reader(text):
    for parse in (read, lambda given_text: parse_raw(given_text, OUTER.get)):
        try:
            values = parse(text)
        except EnvFileError as error:
            assert error.line >= 1  # noqa: PT017 - a line the user can look at
        else:
            assert all(isinstance(value, str) for value in values.values())
