"""Figures as Prometheus reads them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from specs.kit import metrics
from specs.kit.metrics import Family, Histogram

LINE = re.compile(
    r'[a-zA-Z_:][\w:]*(\{[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*"'
    r'(,[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\n"])*")*\})? (\+Inf|-?\d+(\.\d+)?(e[+-]?\d+)?)'
)


def parsed(text):
    """Return the samples by name with labels; every line must be of the format."""
    found = {}
    for line in text.split("\n"):
        if not line or line.startswith(("# HELP ", "# TYPE ")):
            continue
        assert LINE.fullmatch(line), line
        name, _, value = line.rpartition(" ")
        assert name not in found, name
        found[name] = float(value)
    assert text.endswith("\n")
    return found


@given(st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_any_name_of_a_service_is_a_label(word, value):
    text = metrics.text([Family("corral_x", "gauge", "X", (("", {"service": word}, value),))])
    # A lone \r is no end of a line there.
    (found,) = parsed(text).values()
    assert found == value


@given(st.lists(st.floats(0, 100), max_size=30))
def test_a_histogram_counts_everything_once(values):
    made = Histogram("corral_x_seconds", "X")
    for value in values:
        made.observe(value)
    found = parsed(metrics.text([made.family()]))
    buckets = [v for k, v in found.items() if k.startswith("corral_x_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == found["corral_x_seconds_count"] == len(values)
    for edge in metrics.SECONDS:
        assert found[f'corral_x_seconds_bucket{{le="{metrics._number(edge)}"}}'] == sum(
            value <= edge for value in values
        )


def test_the_kernel_knows_this_process():
    found = parsed(metrics.text(metrics.process()))
    assert found["process_resident_memory_bytes"] > 1 << 20
    assert found["process_open_fds"] > 0
