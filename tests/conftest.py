"""Fixtures every test may ask for."""

from tests.lab_fixtures import fresh_lab, host, lab, lab_pool

__all__ = ["fresh_lab", "host", "lab", "lab_pool"]
