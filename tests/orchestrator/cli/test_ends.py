"""When an attached `up` ends, with which code, and whether it stops the others: the table."""

from __future__ import annotations

import pytest

from orchestrator.cli.show.ends import Ends, SeenExit, awaited, code, decide, run_again
from specs.compose.project.selection import with_dependencies

EXIT = Ends(abort="exit")
FAILURE = Ends(abort="failure")
TESTS = Ends(abort="exit", exit_code_from="tests", awaited=frozenset({"init", "migrate"}))
LENIENT = Ends(abort="failure", exit_code_from="tests")
NAMED = Ends(named=("tests",), watched=("tests",))


def ended(*words):
    """Return exits of ``service=code`` words."""
    return [SeenExit(n, f"{n}-1", int(c)) for n, c in (word.split("=") for word in words)]


@pytest.mark.parametrize(
    ("ends", "exits", "alive", "deployed", "how", "expected"),
    [
        # No flag: the end of all is the end, however they ended.
        (Ends(), [], "db", True, "", None),
        (Ends(), ["db=3"], "", True, "over", 0),
        (Ends(), ["db=3"], "", None, "", None),
        (Ends(), ["db=3"], "web", False, "failed", None),
        # The first that exits, or fails, ends all.
        (EXIT, ["web=0", "db=3"], "x", None, "aborted", 0),
        (EXIT, [], "db", True, "", None),
        (EXIT, [], "", True, "over", 0),  # nothing runs and nothing will
        (FAILURE, ["web=0"], "db", True, "", None),
        (FAILURE, ["web=0", "db=6"], "x", None, "aborted", 6),
        (FAILURE, ["web=0"], "", True, "over", 0),
        # The named one's code, whoever ended first.
        (TESTS, ["tests=7"], "db", None, "aborted", 7),
        (TESTS, ["tests=0"], "db", True, "aborted", 0),
        (TESTS, ["db=0", "tests=143"], "", None, "aborted", 143),
        # A clean end that others wait for is a beginning; a failed one is the end.
        (TESTS, ["init=0"], "db tests", None, "", None),
        (TESTS, ["init=0", "tests=7"], "db", None, "aborted", 7),
        (TESTS, ["migrate=5"], "db tests", None, "aborted", 1),
        (TESTS, ["migrate=5"], "db", False, "aborted", 1),
        (Ends(abort="exit", awaited=frozenset({"init"})), ["init=0"], "db", True, "", None),
        (Ends(abort="exit", exit_code_from="init", awaited=frozenset({"init"})),
         ["init=0"], "db", None, "aborted", 0),
        # Never 0 for what did not run, and no wait for what never will.
        (TESTS, ["db=0"], "tests", None, "aborted", 1),
        (TESTS, ["init=0"], "db", True, "aborted", 1),
        (TESTS, [], "db", True, "aborted", 1),
        (TESTS, [], "db", False, "failed", None),
        (TESTS, [], "db tests", True, "", None),
        # With the gentler flag a success ends nothing; the code is the named one's all the same.
        (LENIENT, ["db=0"], "tests", None, "", None),
        (LENIENT, ["db=0", "tests=7"], "web", None, "aborted", 7),
        (LENIENT, ["tests=0"], "db", True, "", None),
        (LENIENT, ["tests=0", "db=4"], "", True, "aborted", 0),
        (LENIENT, ["tests=0"], "", True, "over", 0),
        (LENIENT, ["db=4"], "tests", None, "aborted", 1),
        # Named services, or the attached ones: their end is ours, whatever runs beside them.
        (NAMED, ["tests=3"], "db", True, "over", 0),
        (NAMED, ["db=3"], "tests", True, "", None),
        (NAMED, ["tests=3"], "db", None, "", None),
        (Ends(watched=("batch",)), ["batch=0"], "db web", True, "over", 0),
        (Ends(watched=("a", "b")), ["a=0"], "b db", True, "", None),
    ],
)  # fmt: skip
def test_when_it_ends_and_with_which_code(ends, exits, alive, deployed, how, expected):
    found = ended(*exits)
    end = decide(ends, found, set(alive.split()), deployed=deployed)
    assert (end.how if end else "") == how
    if expected is not None:
        number, words = code(ends, end, found)
        assert number == expected
        ran = any(one.service == ends.exit_code_from for one in found)
        assert ("did not run" in words) == bool(ends.exit_code_from and not ran)


@pytest.mark.parametrize(
    ("ends", "again"),
    [
        (Ends(), ()),
        (FAILURE, ()),
        (EXIT, ("db", "init", "tests")),
        (Ends(abort="exit", awaited=frozenset({"init"})), ("db", "tests")),
        (TESTS, ("tests",)),
        (LENIENT, ("tests",)),
    ],
)
def test_what_completed_before_runs_again_where_its_end_is_asked_for(ends, again):
    assert run_again(ends, ["tests", "db", "init"]) == again


def test_what_the_files_say():
    clean = {"condition": "service_completed_successfully"}
    services = {
        "tests": {"depends_on": {"init": clean, "db": {"condition": "service_started"}}},
        "db": {"depends_on": ["disk"]},
        "init": None,
        "disk": {},
        "web": {},
    }
    assert awaited(services) == {"init"}
    assert with_dependencies(services, ["tests"]) == {"tests", "init", "db", "disk"}
