"""Networks, volumes, secrets and configs as objects of their own: what is asked, what is shown.

What `corral network|volume|secret|config` sends and prints. An object somebody made has no
stack; one that a stack's file made has that stack's name. ``used_by``: the stacks that mean it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from specs.base import Model

ObjectKind = Literal["network", "volume", "secret", "config"]


class CreateNetwork(Model):
    name: str
    driver: str = ""
    subnets: tuple[str, ...] = ()
    internal: bool = False
    attachable: bool = False
    options: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)


class CreateVolume(Model):
    """``node``: by name or id; without it the volume's home is where it is first used."""

    name: str = ""
    driver: str = ""
    options: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    node: str = ""


class CreateContent(Model):
    """A secret or config; ``data`` is base64."""

    name: str
    data: str
    secret: bool
    labels: dict[str, str] = Field(default_factory=dict)


MakeObject = CreateNetwork | CreateVolume | CreateContent


class MadeObject(Model):
    id: str
    name: str


class DroppedObject(Model):
    """``left``: why not all of it is gone yet; ``needed``: who misses it then. Both in words."""

    name: str
    left: str = ""
    needed: str = ""


class NetworkRow(Model):
    id: str
    name: str
    driver: str = "overlay"
    stack: str = ""
    subnets: tuple[str, ...] = ()
    internal: bool = False
    attachable: bool = False
    mtu: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    created_at: float = 0.0
    used_by: tuple[str, ...] = ()
    tasks: dict[str, str] = Field(default_factory=dict)  # task's name -> its address


class NetworkRows(Model):
    networks: tuple[NetworkRow, ...] = ()


class MoveVolume(Model):
    """What is to become of a volume's move.

    ``move``: begin one, ``to`` a node (name or id). ``cancel``: take back the one under way.
    ``confirm``: what the last one left goes. ``back``: what it left is the volume again.
    ``along``: more volumes, which move with it as one; what moved as one is taken back,
    confirmed and brought back as one.
    """

    act: Literal["move", "cancel", "confirm", "back"] = "move"
    to: str = ""
    along: tuple[str, ...] = ()


class MoveRow(Model):
    """A move under way. ``sent`` of ``size`` bytes; ``waits``: for what, in words."""

    to: str
    phase: Literal["copying", "closing", "undoing"]
    back: bool = False
    waits: str = ""
    sent: int = 0
    size: int = 0


class VolumeLook(Model):
    """What a node has of a volume: bytes on its disk, entries; ``kept``: one set aside is there.

    ``free`` bytes of its disk; -1 = not known.
    """

    here: bool = False
    kept: bool = False
    size: int = 0
    entries: int = 0
    free: int = -1


class VolumeRow(Model):
    """``node`` is the name of its home; empty = not used yet, or the same on every node.

    ``everywhere``: a global service has one of the name on each of its nodes.
    """

    name: str
    driver: str = "local"
    node: str = ""
    stack: str = ""
    options: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    created_at: float = 0.0
    used_by: tuple[str, ...] = ()
    services: tuple[str, ...] = ()  # STACK/SERVICE of those that mount it
    removing: bool = False
    reason: str = ""
    everywhere: bool = False
    move: MoveRow | None = None
    kept: str = ""  # the node with the copy that the last move left
    moved: str = ""  # how the last move went that was not completed, in words
    along: tuple[str, ...] = ()  # volumes that move with it now, or did and left a copy, too


class Restored(Model):
    """What became of the archive of a volume: it is the volume's data now, on that node."""

    volume: str
    node: str = ""


class VolumeRows(Model):
    volumes: tuple[VolumeRow, ...] = ()


class ContentRow(Model):
    """A secret or config; ``data`` (base64) of a config alone, and only where one is asked for."""

    id: str
    name: str
    stack: str = ""
    size: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    created_at: float = 0.0
    used_by: tuple[str, ...] = ()
    data: str = ""


class ContentRows(Model):
    contents: tuple[ContentRow, ...] = ()
