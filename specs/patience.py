"""How long a task is watched, or waited for, before it is judged: what `up` and `scale` agree on.

The control loops judge the tasks of a release by these (``scheduler.trial``,
``orchestrator.control.planning.failing`` and ``nowhere``), the command line the copies that
``corral scale`` added. Standard library only, for the sake of the command line.
"""

from __future__ import annotations

TRIAL = 1.0  # seconds a task without a health check runs before it is judged
MONITOR = 5.0  # of these, once something of it exited: ``update_config.monitor`` says otherwise
KEEP_OLD = 600.0  # seconds the old tasks of a blue-green update stay, ready to go back to
CRASHES = 9  # ends of a first start that never lasted: about half a minute of back-off
ATTEMPTS = 3  # replacements of one slot that failed in a row
SICK = 30.0  # seconds for an unhealthy container that nobody waits for: slow starters get well
NOWHERE = 10.0  # seconds without a node after which that is said
