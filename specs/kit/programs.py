"""Where programs of the system are looked for, whoever started us.

A daemon may be started by systemd, by ssh without a login or by a person whose
PATH lacks the sbin directories, where nft, crun's helpers and groupadd live. So
what we start is found along this list and gets it as its own PATH; it is also
what a container finds when its image names none, as with Docker.
"""

from __future__ import annotations

import shutil
from typing import Final

SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find(name: str) -> str | None:
    """Return the path of a program of the system; None when it is not installed."""
    return shutil.which(name, path=SYSTEM_PATH)
