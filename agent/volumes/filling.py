"""Copy a folder of an image into a new volume, with all it has."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING, Final

from agent.errors import Later
from agent.linux import calls as kernel
from agent.volumes.replacing import opened

if TYPE_CHECKING:
    from pathlib import Path

_COPY_SECONDS: Final = 600


def fill_from(data: Path, root: Path, origin: str) -> bool:
    """Copy the image's directory ``origin`` into a new volume; False when it has none."""
    with opened(root) as base:
        try:
            inside = kernel.open_inside(base, origin.lstrip("/"), os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            raise
    try:
        # cp -a never follows a link it meets, keeps owners, links, holes and attributes;
        # the start is our open directory, which no link can redirect.
        result = subprocess.run(
            [
                # It must not go on writing when the agent is killed and cleans up anew.
                *("setpriv", "--pdeathsig", "KILL", "cp", "-a", "--reflink=auto"),
                *(f"/proc/self/fd/{inside}/.", f"{data}/"),
            ],
            pass_fds=(inside,),
            capture_output=True,
            timeout=_COPY_SECONDS,
            check=False,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise Later(f"filling a volume took more than {_COPY_SECONDS} s") from None
    finally:
        os.close(inside)
    if result.returncode:
        words = result.stderr.decode(errors="replace").strip().splitlines()
        raise Later(f"cannot fill volume {data.parent.name}: {words[-1] if words else 'cp failed'}")
    return True
