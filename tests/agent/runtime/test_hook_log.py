"""What a hook prints goes to the log of its run: whole lines behind its kind, and not for ever."""

from __future__ import annotations

import pytest

from agent.runtime import hooks, logreading
from agent.runtime.exec import STDERR, STDOUT
from agent.runtime.logs import path_of

CASES = {
    # pieces of output -> lines of the log
    "a line": ([b"one\n"], ["one"]),
    "in pieces": ([b"o", b"ne\ntw", b"o\n"], ["one", "two"]),
    "without an end": ([b"one"], ["one"]),
    "an empty one": ([b"\n\n"], ["", ""]),
    "a terminal's": ([b"one\r\n"], ["one"]),
    "no text": ([b"\xff\n"], ["\ufffd"]),
    "too long": ([b"x" * (hooks._LINE + 1)], ["x" * hooks._LINE, "x"]),
    "nothing": ([], []),
}


@pytest.mark.parametrize("case", CASES)
def test_output_is_kept_in_whole_lines(tmp_path, case):
    pieces, lines = CASES[case]
    path = path_of(tmp_path, 1)
    path.touch()
    log = hooks.HookLog(path, "pre_stop")
    for piece in (*pieces, b""):
        log.add(STDOUT, piece)
    found = logreading.last_lines(tmp_path, 10, 1 << 20)
    assert [line.line for line in found] == [f"pre_stop hook: {line}" for line in lines]


def test_what_it_complained_of_is_told_before_what_it_said(tmp_path):
    log = hooks.HookLog(tmp_path / "none", "post_start")
    log.add(STDOUT, b"progress\n")
    assert log.last == "progress"
    log.add(STDERR, b"no such table\n\n")
    log.add(STDOUT, b"more\n")
    assert log.last == "no such table"
    assert not (tmp_path / "none").exists(), "a log that is switched off is not begun"


def test_a_chatty_hook_does_not_fill_the_disk(tmp_path):
    path = path_of(tmp_path, 1)
    path.touch()
    log = hooks.HookLog(path, "post_start")
    for _ in range(400):
        log.add(STDOUT, b"x" * 8000 + b"\n")
    assert path.stat().st_size < hooks._KEPT + 20_000
    assert path.read_text().splitlines()[-1].endswith("(what it prints further is not kept)")
