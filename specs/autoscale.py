"""What ``x-corral.autoscale`` says of a service: how many tasks, by what they use."""

from __future__ import annotations

from specs.base import Model

COOLDOWN = 60.0
HOLD = 600.0


class AutoscaleSpec(Model):
    """Between ``least`` and ``most`` tasks, so that each uses about as much as is wanted.

    ``cpu``: of its CPU limit, else of what is reserved for it, else of one CPU. ``memory``: of its
    limit, else of what is reserved. Both as fractions, None = it does not count. ``cooldown``:
    seconds from one change to the next, and for which fewer must do before there are fewer.
    ``hold``: seconds a number that somebody set by hand stays.
    """

    least: int = 1
    most: int
    cpu: float | None = None
    memory: float | None = None
    cooldown: float = COOLDOWN
    hold: float = HOLD
