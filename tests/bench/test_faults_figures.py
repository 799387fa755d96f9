"""What the bench of faults makes of requests: its pure part."""

import pytest

from tests.bench.faults.__main__ import kept_rows, merged
from tests.bench.faults.figures import Request, errors, parse, restored


def asked(failing, seconds=10.0, client="n1", task="a"):
    """Ten requests a second, failed where ``failing`` says so."""
    times = [i / 10 for i in range(int(seconds * 10))]
    return [Request(client, at, "" if failing(at) else task) for at in times]


@pytest.mark.parametrize(
    ("failing", "span", "failed"),
    [
        (lambda at: False, 0.0, 0),
        (lambda at: at == 3.0, 0.1, 1),
        (lambda at: 3.0 <= at < 5.0, 2.0, 20),
        (lambda at: at in (3.0, 4.5), 1.6, 2),  # now and then is a span too
        (lambda at: at < 1.0 or 4.0 <= at < 5.5, 1.5, 25),  # of two spans the longer
        (lambda at: True, 10.0, 100),
    ],
)
def test_the_longest_span_of_errors(failing, span, failed):
    found = errors(asked(failing), 0.0, 10.0)
    assert (found.failed, found.asked) == (failed, 100)
    assert found.span == pytest.approx(span, abs=0.01)


def test_clients_are_judged_each_for_itself():
    early = asked(lambda at: at < 1.0, client="n1")
    late = asked(lambda at: 1.0 <= at < 2.0, client="n2")
    assert errors([*early, *late], 0.0, 10.0).span == pytest.approx(1.0, abs=0.01)


def test_only_what_began_in_the_span_counts():
    assert errors(asked(lambda at: at < 5.0), 5.0, 10.0).failed == 0


def test_a_replacement_that_answers_makes_up_the_number_again():
    kept = asked(lambda at: False, task="a")
    lost = [r for r in asked(lambda at: False, task="b") if r.begun < 2.0]
    other = [r for r in asked(lambda at: False, task="c") if r.begun >= 6.0]
    took, fewest = restored([*kept, *lost, *other], 2, 2.0, 10.0)
    assert took == pytest.approx(4.0, abs=0.11)
    assert fewest == 1


def test_a_number_that_never_fell_took_no_time():
    requests = [*asked(lambda at: False, task="a"), *asked(lambda at: False, task="b")]
    assert restored(requests, 2, 1.0, 10.0) == (0.0, 2)


@pytest.mark.parametrize("tasks", [(), ("a",)])
def test_a_number_that_stays_too_small_is_said(tasks):
    requests = [request for task in tasks for request in asked(lambda at: False, task=task)]
    assert restored(requests, 2, 1.0, 10.0)[0] is None


def test_a_line_that_is_not_whole_is_left_out():
    text = "1.000 0.010 app-web-1\n2.000 1.000 -timeout\n3.000 0.0"
    first, second = parse("n1", text)
    assert first == Request("n1", 1.0, "app-web-1")
    assert second == Request("n1", 2.0, "", "timeout")


def test_a_fault_measured_anew_replaces_its_row():
    page = "<!-- figures: default -->\n| fault | a |\n| --- | - |\n| one | 1 |\n| two | 2 |\n"
    kept = kept_rows(f"{page}<!-- end: default -->\n| other | 3 |\n", "default")
    assert kept == [("one", "1"), ("two", "2")]
    new = [("two", "5"), ("zero", "0")]
    assert merged(kept, new, ["zero", "one", "two"]) == [("zero", "0"), ("one", "1"), ("two", "5")]
