"""What containers print, and the codes they end with, as a terminal sees them.

Attached runs and ``logs`` over containers that end at once: nothing is lost, said twice or
broken, and the code is the container's.
"""

from __future__ import annotations

import itertools
import subprocess

import pytest

pytestmark = pytest.mark.real

SNOW = "\N{SNOWMAN}"
STREAMS = f"""
services:
  bare: {{image: busybox, command: [printf, 'one\\ntwo']}}
  both:
    image: busybox
    command: [sh, -c, "printf 'begun' >&2; sleep 0.2; echo out1; echo out2"]
  halves:
    image: busybox
    command: [sh, -c, "printf '\\\\342\\\\230'; sleep 0.2; printf '\\\\203x\\\\n'"]
  long:
    image: busybox
    command: [sh, -c, "for i in $$(seq 3000); do printf {SNOW * 3}; done; echo; echo end"]
  many: {{image: busybox, command: [seq, '3000']}}
  nothing: {{image: busybox, command: ['true']}}
"""
SAID = {
    "bare": ["one", "two"],
    "both": ["out1", "out2"],
    "halves": [f"{SNOW}x"],
    "long": [SNOW * 9000, "end"],
    "many": [str(number) for number in range(1, 3001)],
    "nothing": [],
}


def spoken(text: str) -> dict[str, list[str]]:
    """Return service -> its lines, of output with prefixes."""
    found: dict[str, list[str]] = {name: [] for name in SAID}
    for line in text.splitlines():
        name, bar, body = line.partition(" | ")
        if bar:
            found[name.strip().removesuffix("-1")].append(body)
    return found


def test_every_line_comes_once_and_whole(corral):
    corral.compose(STREAMS)
    attached = corral("up")
    assert spoken(attached.stdout) == SAID
    assert attached.stderr.count("| begun") == 1
    for name in SAID:
        assert f"{name}-1 exited with code 0" in attached.stdout
    read = corral("logs")
    assert spoken(read.stdout) == SAID
    assert read.stderr.count("begun") == 1
    assert spoken(corral("logs", "--tail", "2").stdout) == {
        **{name: lines[-2:] for name, lines in SAID.items()},
        "both": ["out2"],  # what its other stream began is its last line
    }
    # Following what has ended: everything once, and that is the end.
    few = {name: lines for name, lines in SAID.items() if len("".join(lines)) < 100}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    following = corral.popen("logs", "-f", *few, text=True, **pipes)
    code, out, err = following.finish(60)
    assert code == 0
    assert {name: spoken(out)[name] for name in few} == few
    assert err.count("begun") == 1


@pytest.mark.parametrize(
    ("script", "flags", "code"),
    [
        ("exit 7", ["--exit-code-from", "test"], 7),
        ("exit 0", ["--exit-code-from", "test"], 0),
        ("sleep 0.3; exit 4", ["--exit-code-from", "test"], 4),
        ("kill -9 $$$$", ["--exit-code-from", "test"], 137),
        ("printf last; exit 5", ["--abort-on-container-exit"], 5),
        ("sleep 0.2; exit 6", ["--abort-on-container-failure"], 6),
        (
            "trap 'exit 9' TERM; touch /tmp/up; sleep inf & wait",
            ["--exit-code-from", "test", "QUICK"],
            9,
        ),
    ],
)
def test_the_exit_code_is_the_containers(corral, script, flags, code):
    other, check, after = "sleep inf", "", ""
    if "QUICK" in flags:  # it ends when the other is ready to be asked to end
        other = "sleep 0.1"
        check = ", healthcheck: {test: [CMD, test, -e, /tmp/up], interval: 0.2s, retries: 1000}"
        after = ", depends_on: {test: {condition: service_healthy}}"
    corral.compose(
        "services:\n"
        f'  test: {{image: busybox, init: true, command: [sh, -c, "{script}"]{check}}}\n'
        f'  db: {{image: busybox, command: [sh, -c, "{other}"], stop_grace_period: 0s{after}}}\n'
    )
    done = corral("up", *[flag for flag in flags if flag != "QUICK"], code=code)
    assert ("test-1  | last" in done.stdout) == ("last" in script)
    assert not corral.processes()


SUITE = """
services:
  db: {image: busybox, command: [sleep, inf], stop_grace_period: 0s}
  init: {image: busybox, command: [sh, -c, "exit $INIT"]}
  tests:
    image: busybox
    command: [sh, -c, "exit 7"]
    depends_on:
      db: {condition: service_started}
      init: {condition: service_completed_successfully}
"""


def test_a_code_is_that_of_a_run_and_every_wait_has_an_end(corral):
    """One stack: its one-off ends well or badly, and the service whose code is asked for again."""
    corral.compose(SUITE.replace("$INIT", "5"))
    failed = corral("up", "--exit-code-from", "tests", code=1)
    assert "tests did not run, so it has no exit code: init-1 exited with code 5" in failed.stderr
    assert not corral.processes()
    corral.compose(SUITE.replace("$INIT", "0"))
    corral("up", "--exit-code-from", "tests", "--abort-on-container-failure", code=7)
    assert not corral.processes()
    corral.compose(SUITE.replace("$INIT", "0").replace("exit 7", "true"))
    for _ in range(2):  # what completed the first time runs again
        done = corral("up", "--exit-code-from", "tests", code=0)
        assert "tests-1 exited with code 0" in done.stdout
    # What is named ends it, and nothing else is stopped.
    corral.compose(SUITE.replace("$INIT", "0").replace("exit 7", "exit 3"))
    named = corral("up", "tests", code=None)
    assert "tests-1 exited with code 3" in named.stdout
    assert [(row["service"], row["ready"]) for row in corral.rows()] == [("db", True)]
    assert corral("restart", "tests", code=1).stderr.count("did not come back: app-tests-1") == 1


def test_what_was_just_written_survives_rotation(corral):
    """One file of 4 kB, and more than that printed between two looks of the agent."""
    corral.compose(
        "services:\n"
        "  web:\n"
        "    image: busybox\n"
        "    command: [sh, -c, 'seq 1 5000; sleep 1; seq 5001 5020; sleep 1; echo end; cat']\n"
        "    stdin_open: true\n"
        "    logging: {options: {max-size: 4k, max-file: '1'}}\n"
        "    stop_grace_period: 0s\n"
    )
    corral("up", "-d")
    corral.until("its last line", lambda: "| end" in corral("logs", "--tail", "1").stdout)
    read = corral("logs", "--no-log-prefix")
    lines = read.stdout.splitlines()
    assert lines[-21:] == [*map(str, range(5001, 5021)), "end"]
    numbers = [int(line) for line in lines[:-1]]
    assert numbers == sorted(set(numbers))
    jumps = sum(after != before + 1 for before, after in itertools.pairwise(numbers))
    assert jumps <= read.stderr.count("of output are missing here"), "said where it was too fast"
    assert corral("logs", "--no-log-prefix", "--tail", "3").stdout.split() == [
        "5019",
        "5020",
        "end",
    ]


def test_the_last_lines_of_a_failure_are_the_containers(corral):
    corral.compose(
        "services:\n"
        "  web:\n"
        "    build: .\n"
        "    command: [sh, -c, 'echo cannot read the settings; printf no-newline; exit 3']\n",
        Dockerfile="FROM busybox\nRUN echo building-it\n",
    )
    done = corral("up", "-d", code=1)
    words = done.stderr.partition("failed:")[2]
    assert "| cannot read the settings" in words
    assert "| no-newline" in words
    assert "building-it" not in words
