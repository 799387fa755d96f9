"""Fixtures every test sees: lab hosts (tests/lab_fixtures.py) and Hypothesis' profiles."""

import asyncio
import os

from hypothesis import HealthCheck, settings

from tests.lab_fixtures import fresh_lab, host, lab, lab_pool

# pytest-asyncio asks for the thread's loop before it makes its own, and Python 3.11 then makes
# one that nobody closes; saying that there is none keeps that warning out of innocent tests.
asyncio.set_event_loop(None)

__all__ = ["fresh_lab", "host", "lab", "lab_pool"]

# pytest-asyncio asks for the current event loop before it sets its own; asking makes one that
# nobody closes, which shows up as a ResourceWarning in whatever test runs later.
asyncio.set_event_loop(None)

# A busy two-core machine is not a finding: no deadlines, no health check of speed. What lands is
# judged by the same examples every time; the slow lane looks for new ones.
_BASE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("repeatable", derandomize=True, **_BASE)
settings.register_profile("explore", max_examples=2000, **_BASE)
settings.load_profile("explore" if os.environ.get("CORRAL_EXPLORE") else "repeatable")
