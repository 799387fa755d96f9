"""``python -m tests.sim``: run seeds, show one, shrink what fails."""

from __future__ import annotations

import sys

from tests.sim.command import main

sys.exit(main())
