"""How a problem is shown."""

from __future__ import annotations

import pytest

from specs.problems import Position, Problem, render


@pytest.mark.parametrize("length", [5, 160, 161, 400, 3_000_000])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.7, 1.0])
def test_of_a_long_line_the_part_around_the_place_is_shown(length, where):
    at = int(where * (length - 1))
    line = "a" * at + "X" + "b" * (length - at - 1)
    problem = Problem("bad", "services.web", position=Position("compose.yaml", 1, at + 1))
    _, shown, caret = render(problem, line + "\n").splitlines()
    assert len(shown) <= 4 + 160 + 6
    assert shown[caret.index("^")] == "X"
    assert shown.startswith("  | ...") == (length > 160 and at > 80)
    assert shown.endswith("...") == (length > 160 and at < length - 80)
