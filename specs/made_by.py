"""Who made a release, how, from where and why: kept for people, decides nothing.

The command line says what it knows (``message``, ``login``, the checkout); who it really is the
controller asks the kernel (``user``, ``uid``), and nothing that was sent about that counts.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from specs.base import Model

LONGEST_MESSAGE = 500  # characters of `up -m`

MadeKind = Literal["", "up", "create", "start", "scale", "rollback", "resume", "schedule"]


class MadeBy(Model):
    """``kind``: the verb; "" = an earlier version did not say.

    ``dirty``: files that git knows differ from the commit; None = not known. ``to``: of a
    rollback, the release that is brought back; with ``only`` these of its services.
    """

    kind: MadeKind = ""
    user: str = Field(default="", max_length=256)  # the name of ``uid`` on the controller's machine
    uid: int | None = None  # of who opened the connection; None = not known
    login: str = Field(default="", max_length=256)  # who became root by sudo, as he says
    host: str = Field(default="", max_length=256)  # where the command ran
    directory: str = Field(default="", max_length=4096)  # of the project, there
    message: str = Field(default="", max_length=LONGEST_MESSAGE)
    branch: str = Field(default="", max_length=256)
    commit: str = Field(default="", max_length=64)  # hexadecimal; empty = no checkout
    dirty: bool | None = None
    to: int = 0
    only: tuple[str, ...] = ()

    def asked_by(self, kind: MadeKind, user: str, uid: int | None) -> MadeBy:
        """Return it as the controller has it: by whom the kernel says, for what the path says."""
        return self.model_copy(update={"kind": kind, "user": user, "uid": uid})

    def at(self, host: str, directory: str = "") -> MadeBy:
        """Return it with where it was asked, if it does not say."""
        return self.model_copy(
            update={"host": self.host or host, "directory": self.directory or directory}
        )

    @property
    def who(self) -> str:
        """Return who it was, for people: ``anna``, ``root (anna)``, ``uid 1007``."""
        name = self.user or (f"uid {self.uid}" if self.uid is not None else "")
        if not self.login or self.login == name:
            return name or self.login
        return f"{name} ({self.login})" if name else self.login
