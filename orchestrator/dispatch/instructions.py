"""What to send a node: the difference between two sets of objects, and its JSON. Pure.

session.py keeps the set a node acknowledged and asks here what takes it to the
set the control loops want now. What many nodes are told alike is put into JSON once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from specs.kit.layers import changes, plain
from specs.wire import KINDS, Objects

if TYPE_CHECKING:
    from specs.base import Model
    from specs.wire import Instructions

# Of what is told to many nodes alike. Not tasks, which have one node, and not contents: a secret
# is not kept open.
SHARED = frozenset(KINDS) - {"tasks", "contents"}
ROOM = 1 << 20  # bytes of JSON that are kept, at most twice as many: some 20 stacks of 20 services


def difference(old: Objects, new: Objects) -> tuple[Objects, dict[str, tuple[str, ...]]]:
    """Return what to put and what to remove, by kind, to get from ``old`` to ``new``."""
    put: dict[str, Any] = {}
    remove = {}
    for kind in KINDS:
        changed, gone = changes(getattr(old, kind), getattr(new, kind))
        if changed:
            put[kind] = changed
        if gone:
            remove[kind] = tuple(gone)
    # The objects are validated already; running them through validation again costs more than
    # everything else here, and so does making what is left out.
    given = {kind: put.get(kind, {}) for kind in KINDS}
    return Objects.model_construct(_fields_set=set(put), **given), remove


def whole(objects: Objects) -> Objects:
    """Return a set as it is sent in full: every kind a dictionary of its own."""
    given = {kind: plain(getattr(objects, kind)) for kind in KINDS}
    return Objects.model_construct(_fields_set=set(given), **given)


def is_empty(put: Objects, remove: dict[str, tuple[str, ...]]) -> bool:
    """Say whether there is nothing to send."""
    return not remove and not any(getattr(put, kind) for kind in KINDS)


class Spelled:
    """The JSON of objects that many nodes get, for a while: they get them one after the other."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._size = 0
        # By identity, with the object itself: while that is here, its number is nobody else's.
        self._new: dict[int, tuple[Model, bytes]] = {}
        self._old: dict[int, tuple[Model, bytes]] = {}

    def of(self, model: Model) -> bytes:
        """Return the object's JSON, as ``Model.encode`` makes it."""
        known = self._new.get(id(model))
        if known is not None:
            return known[1]
        known = self._old.get(id(model)) or (model, model.encode())
        if self._size > self._room:
            self._old, self._new, self._size = self._new, {}, 0
        self._new[id(model)] = known
        self._size += len(known[1])
        return known[1]


def spell(instructions: Instructions, spelled: Spelled) -> bytes:
    """Return what ``instructions.encode()`` says, with the JSON of objects others got, too."""
    head = instructions.model_dump_json(exclude_defaults=True, exclude={"put"}).encode()
    kinds = []
    for kind in KINDS:
        objects = getattr(instructions.put, kind)
        if not objects:
            continue
        of = spelled.of if kind in SHARED else _encode
        each = b",".join(json.dumps(key).encode() + b":" + of(one) for key, one in objects.items())
        kinds.append(b'"%b":{%b}' % (kind.encode(), each))
    if not kinds:
        return head
    return b'%b,"put":{%b}}' % (head[:-1], b",".join(kinds))


def _encode(model: Model) -> bytes:
    return model.encode()
