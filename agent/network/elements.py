"""The elements of our nftables sets as the kernel takes them: what `nft` would send, without it.

A task's start and end change a few elements and nothing else, and starting `nft` for that is the
longest single step of both (10 ms of processor time, 25 on a busy machine). Nor is anything taken
out that need not be: the kernel waits 10 to 30 ms for every processor before it forgets an element.
What is more than elements of the kinds below is left to `nft` (``nft.py``), which also has the last
word where the kernel refuses ours. Bytes are pure; ``commit`` sends them as one transaction.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Network, collapse_addresses, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

from agent.linux.netlink import (
    NETLINK_NETFILTER,
    NLM_F_CREATE,
    Message,
    NetlinkSocket,
    attr,
    nest,
)
from agent.network import names
from agent.network.rules import SETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from agent.network.rules import Ruleset

# linux/netfilter/nfnetlink.h, nf_tables.h
SUBSYSTEM: Final = 10
_BEGIN, _END = 0x10, 0x11
_NEW_ELEMENTS, _DELETE_ELEMENTS = SUBSYSTEM << 8 | 12, SUBSYSTEM << 8 | 14
_INET: Final = 1  # NFPROTO_INET
_BATCH_GENERATION: Final = 1
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_ELEMENT, _VALUE = 1, 1
_KEY, _DATA, _FLAGS, _KEY_END = 1, 2, 3, 10
_INTERVAL_END: Final = 1
_LARGEST: Final = 500  # elements of a message, whose attribute has 64 KiB

_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


class Move(NamedTuple):
    """What happens to one set: emptied or not, then elements away, then others in."""

    name: str
    emptied: bool = False
    gone: tuple[str, ...] = ()
    added: tuple[tuple[str, str], ...] = ()  # element, data ("" in a plain set)
    ranges: tuple[tuple[int, int], ...] = ()  # of addresses, the first and the one after the last
    opens: bool = False  # nothing is in the set before these ranges


def moves(old: Ruleset, new: Ruleset) -> tuple[Move, ...] | None:
    """Return how the sets differ, where nothing else does that we cannot say; else None."""
    if old.base != new.base or old.chains != new.chains:
        return None
    found = []
    for name, (key, flags, data) in SETS.items():
        before, after = old.sets.get(name, {}), new.sets.get(name, {})
        if before == after:
            continue
        if any(part not in _PARTS for part in key.split(" . ")) or data not in ("", "ipv4_addr"):
            return None
        if flags and " . " not in key:
            found += _range_moves(name, before, after)
            continue
        gone = tuple(sorted(key for key in before if after.get(key) != before[key]))
        added = tuple(sorted((k, d) for k, d in after.items() if before.get(k) != d))
        if flags and gone:
            found.append(Move(name, emptied=True, added=tuple(sorted(after.items()))))
        else:
            found.append(Move(name, gone=gone, added=added))
    return tuple(found)


def _range_moves(name: str, before: Iterable[str], after: Iterable[str]) -> list[Move]:
    """Return how a set of ranges changes; those that touch are one, as `nft` has them."""
    had, has = _merged(before), _merged(after)
    if had == has:
        return []
    if had and has and has[0][0] and set(had) <= set(has):
        return [Move(name, ranges=tuple(one for one in has if one not in set(had)))]
    return [Move(name, emptied=bool(had), ranges=tuple(has), opens=True)]


def _merged(texts: Iterable[str]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for network in collapse_addresses(IPv4Network(text) for text in texts):
        first, after = int(network.network_address), int(network.broadcast_address) + 1
        if found and found[-1][1] == first:
            found[-1] = (found[-1][0], after)
        else:
            found.append((first, after))
    return found


def messages(wanted: Sequence[Move]) -> list[Message]:
    """Return a transaction without its ends. Raises ValueError, KeyError: not ours to say."""
    found: list[Message] = []
    for move in wanted:
        key, flags, _ = SETS[move.name]
        parts = key.split(" . ")
        if move.emptied:
            found.append(_message(_DELETE_ELEMENTS, move.name, ()))
        encoded = [nest(_ELEMENT, _key(_KEY, _bytes(text, parts))) for text in move.gone]
        found += _pieces(_DELETE_ELEMENTS, move.name, encoded)
        if flags:
            encoded = [_between(text, parts) for text, _ in move.added]
        else:
            encoded = [_plain(text, data, parts) for text, data in move.added]
        encoded += _edges(move)
        found += _pieces(_NEW_ELEMENTS, move.name, encoded)
    return found


def commit(wanted: Sequence[Move], generation: int) -> None:
    """Send a transaction that the kernel takes only at this ruleset generation. Raises OSError."""
    head = struct.pack(">BBH", 0, 0, SUBSYSTEM)
    at = attr(_BATCH_GENERATION, struct.pack(">I", generation))
    begin = Message(_BEGIN, 0, head + at, "begin a change of the packet filter")
    end = Message(_END, 0, head, "end a change of the packet filter")
    with NetlinkSocket(NETLINK_NETFILTER) as link:
        link.transact(begin, messages(wanted), end)


def _pieces(kind: int, name: str, encoded: Sequence[bytes]) -> list[Message]:
    return [
        _message(kind, name, encoded[at : at + _LARGEST]) for at in range(0, len(encoded), _LARGEST)
    ]


def _message(kind: int, name: str, encoded: Sequence[bytes]) -> Message:
    body = struct.pack(">BBH", _INET, 0, 0) + attr(_TABLE, names.TABLE) + attr(_SET, name)
    if encoded:
        body += nest(_ELEMENTS, *encoded)
    flags = NLM_F_CREATE if kind == _NEW_ELEMENTS else 0
    return Message(kind, flags, body, f"change the set {name}")


def _key(kind: int, value: bytes) -> bytes:
    return nest(kind, attr(_VALUE, value))


def _plain(text: str, data: str, parts: Sequence[str]) -> bytes:
    more = _key(_DATA, socket.inet_aton(data)) if data else b""
    return nest(_ELEMENT, _key(_KEY, _bytes(text, parts)), more)


def _between(text: str, parts: Sequence[str]) -> bytes:
    """Return an element of a set whose keys are ranges side by side."""
    ranges = [ip_network(word) for word in _words(text, parts)]
    first = b"".join(one.network_address.packed for one in ranges)
    last = b"".join(one.broadcast_address.packed for one in ranges)
    return nest(_ELEMENT, _key(_KEY, first), _key(_KEY_END, last))


def _edges(move: Move) -> list[bytes]:
    """Return the elements of a set of ranges: where each begins, and where it has ended.

    As with `nft`, what is before the first one of all has an end, too.
    """
    encoded = [_edge(0, ended=True)] if move.opens and move.ranges and move.ranges[0][0] else []
    for first, after in move.ranges:
        encoded.append(_edge(first, ended=False))
        if after < 1 << 32:
            encoded.append(_edge(after, ended=True))
    return encoded


def _edge(at: int, *, ended: bool) -> bytes:
    flags = attr(_FLAGS, struct.pack(">I", _INTERVAL_END)) if ended else b""
    return nest(_ELEMENT, _key(_KEY, at.to_bytes(4, "big")), flags)


def _bytes(text: str, parts: Sequence[str]) -> bytes:
    words = _words(text, parts)
    found = [_PARTS[part](word) for part, word in zip(parts, words, strict=True)]
    if len(found) == 1:
        return found[0]
    return b"".join(one + b"\0" * (-len(one) % 4) for one in found)


def _words(text: str, parts: Sequence[str]) -> list[str]:
    words = text.split(" . ")
    if len(words) != len(parts):
        raise ValueError(f"{text} is no element of {' . '.join(parts)}")
    return words


def _name(word: str) -> bytes:
    raw = word.strip('"').encode()
    if len(raw) > 15:
        raise ValueError(f"{word} is no name of a device")
    return raw.ljust(16, b"\0")


_PARTS: Mapping[str, Callable[[str], bytes]] = {
    "ipv4_addr": socket.inet_aton,
    "ifname": _name,
    "inet_proto": lambda word: bytes((_PROTOCOLS[word],)),
    "inet_service": lambda word: int(word).to_bytes(2, "big"),
}
