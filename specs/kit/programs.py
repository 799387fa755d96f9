"""Where programs of a machine are looked for, whoever started us.

A daemon started by systemd, by ssh or from a user's shell has another PATH each time; what
it runs must not depend on that. The agent's and the controller's programs are searched
here, the lab's hosts have it as their PATH, and so has a container whose image names none
(it is Docker's).
"""

from __future__ import annotations

import shutil
from typing import Final

SEARCH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find_program(name: str) -> str | None:
    """Return the path of a program of this machine."""
    return shutil.which(name, path=SEARCH)
