"""Fixtures every test may ask for."""

import asyncio

from tests.lab_fixtures import fresh_lab, host, lab, lab_pool

# pytest-asyncio asks for the thread's loop before it makes its own, and Python 3.11 then makes
# one that nobody closes; saying that there is none keeps that warning out of innocent tests.
asyncio.set_event_loop(None)

__all__ = ["fresh_lab", "host", "lab", "lab_pool"]
