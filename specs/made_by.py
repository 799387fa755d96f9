"""Who asked for a change, how, from where and why: kept for people, decides nothing.

Releases keep the whole (`corral history`), events ``who`` of it. The command line says what it
knows: ``login`` and ``host`` in the header ``ASKER`` of every request that is to change something,
the message and the checkout in the bodies that make a release. Who it really is the controller
asks the kernel (``user``, ``uid``), and nothing that was sent about that counts.

Whatever is said ends in the store and on terminals: every text is cleaned and cut here.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import unquote

from pydantic import BeforeValidator, Field

from specs.base import Model

ASKER = "Corral-By"  # a header: LOGIN@HOST, each of them URL-quoted
LONGEST_MESSAGE = 500  # characters of `up -m`
_NAME = 128  # of a user and of a machine: Linux has 32 and 64


def clean(text: str) -> str:
    """Return a text as one line that may be shown: as long, without control characters."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _said(value: object) -> object:
    return clean(value) if isinstance(value, str) else value


def _cut(longest: int) -> BeforeValidator:
    """Return what takes a text of any length, and keeps so many characters of it."""

    def cut(value: object) -> object:
        return _said(value[:longest] if isinstance(value, str) else value)

    return BeforeValidator(cut)


_Name = Annotated[str, _cut(_NAME)]

MadeKind = Literal["", "up", "create", "start", "scale", "rollback", "resume", "schedule"]


class MadeBy(Model):
    """``kind``: the verb; "" = an earlier version did not say.

    ``dirty``: files that git knows differ from the commit; None = not known. ``to``: of a
    rollback, the release that is brought back; with ``only`` these of its services.
    """

    kind: MadeKind = ""
    user: _Name = ""  # the name of ``uid`` on the controller's machine
    uid: int | None = None  # of who opened the connection; None = not known
    login: _Name = ""  # who typed it (before sudo, or elsewhere), as he says
    host: _Name = ""  # where the command ran
    directory: Annotated[str, _cut(4096)] = ""  # of the project, there
    message: Annotated[str, BeforeValidator(_said)] = Field(default="", max_length=LONGEST_MESSAGE)
    branch: Annotated[str, _cut(256)] = ""
    commit: Annotated[str, _cut(64)] = ""  # hexadecimal; empty = no checkout
    dirty: bool | None = None
    to: int = 0
    only: tuple[str, ...] = ()

    @classmethod
    def asker(cls, header: str, user: str, uid: int | None) -> MadeBy:
        """Return who sent a request: whom the kernel says, and what its header ``ASKER`` adds."""
        login, mark, host = header.rpartition("@")
        said = {"login": unquote(login), "host": unquote(host)} if mark else {}
        return cls(user=user, uid=uid, **said)

    def asked_by(self, kind: MadeKind, asker: MadeBy) -> MadeBy:
        """Return it as the controller has it: what a body says, by who sent it, for this."""
        return self.model_copy(
            update={
                "kind": kind,
                "user": asker.user,
                "uid": asker.uid,
                "login": asker.login or self.login,
                "host": asker.host or self.host,
                "to": 0,
                "only": (),
            }
        )

    def at(self, host: str, directory: str = "") -> MadeBy:
        """Return it with where it was asked, if it does not say."""
        more = MadeBy(host=self.host or host, directory=self.directory or directory)
        return self.model_copy(update={"host": more.host, "directory": more.directory})

    @property
    def who(self) -> str:
        """Return who it was, and where: ``anna@laptop``, ``root (anna)@laptop``, ``uid 1007``."""
        name = self.user or (f"uid {self.uid}" if self.uid is not None else "")
        if self.login and self.login != name:
            name = f"{name} ({self.login})" if name else self.login
        return f"{name}@{self.host}" if name and self.host else name or self.host
