"""Bring our nftables table to the wanted ruleset, and notice when somebody changed it.

One ``nft -f -`` is one kernel transaction: packets see the old rules or the
new ones. After it, the kernel's ruleset generation tells for nothing whether
anybody touched nftables since; only then our table is listed and compared.
Called from the nft thread only, which never leaves the node's namespace.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess

from agent.linux.netlink import NETLINK_NETFILTER, NetlinkSocket, parse_attrs
from agent.network import elements, names
from agent.network.rules import Ruleset, change, full

log = logging.getLogger(__name__)

_TIMEOUT = 30.0  # a full load of 1,000 services takes 0.3 s; a hung nft must not hang us
# linux/netfilter/nf_tables.h
_NFNL_SUBSYS_NFTABLES = 10
_NEWGEN = _NFNL_SUBSYS_NFTABLES << 8 | 15  # NFT_MSG_NEWGEN
_GETGEN = _NFNL_SUBSYS_NFTABLES << 8 | 16
_NFTA_GEN_ID = 1
_UNKNOWN = -1  # no generation of the kernel's


class NftFailed(Exception):
    """nft refused a transaction; nothing of it is in force. The message is nft's own."""


def run(*arguments: str, script: str | None = None) -> str:
    """Run nft and return what it printed."""
    try:
        done = subprocess.run(
            ["nft", *arguments],
            input=script,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError as error:
        raise NftFailed(
            "nft is not installed on this node; install the package nftables"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise NftFailed(f"nft did not finish within {_TIMEOUT:.0f} s") from error
    if done.returncode != 0:
        raise NftFailed(done.stderr.strip()[:2000] or f"nft ended with {done.returncode}")
    return done.stdout


def generation() -> int:
    """Return the number the kernel raises at every nftables transaction of this namespace."""
    with NetlinkSocket(NETLINK_NETFILTER) as link:
        kind, body = link.ask(_GETGEN, b"\0\0\0\0", "ask for nftables' generation")
    if kind != _NEWGEN:
        raise OSError("no nftables generation from the kernel")
    return int.from_bytes(parse_attrs(body, 4)[_NFTA_GEN_ID], "big")


class Table:
    """Our table: what we put there last, and whether it is still that."""

    def __init__(self) -> None:
        self._applied: Ruleset | None = None
        self._generation = _UNKNOWN
        self._fingerprint = ""

    @property
    def generation(self) -> int:
        """Return the kernel's ruleset generation at our last look."""
        return self._generation

    def apply(self, wanted: Ruleset) -> bool:
        """Bring the kernel to ``wanted``; return whether anything had to change."""
        if self._applied is not None and not self.intact():
            log.warning("our nftables table was changed by somebody else; restoring it")
            self._applied = None
        if self._applied is None:
            self._load(full(wanted))
        else:
            moves = elements.moves(self._applied, wanted)
            if moves == ():
                return False
            try:
                if moves is None or not self._move(moves):
                    self._load(change(self._applied, wanted))
            except NftFailed as error:
                # Only possible when the kernel is not what we think it is: start over.
                log.warning("nftables change refused, replacing the table: %s", error)
                self._load(full(wanted))
        self._applied = wanted
        return True

    def _move(self, moves: tuple[elements.Move, ...]) -> bool:
        """Change elements without `nft`; False: it is asked, nothing has changed."""
        try:
            # Only of the table as we know it: so the number after it is the next one.
            elements.commit(moves, self._generation)
        except (OSError, ValueError, KeyError) as error:
            log.info("nft is asked for what was refused to us: %s", error)
            return False
        self._fingerprint = ""
        self._generation += 1
        return True

    def _load(self, script: str) -> None:
        self._applied = None
        self._fingerprint = ""
        before = generation()
        run("-f", "-", script=script)
        now = generation()
        # A transaction raises it by one. Where somebody else's came between, nothing is known
        # of the table any more, and the next look puts it there again.
        self._generation = now if now == before + 1 else _UNKNOWN

    def intact(self) -> bool:
        """Say whether the table is as we left it; costs a listing only after foreign changes."""
        now = generation()
        if now == self._generation:
            return True
        try:
            found = _fingerprint()
        except NftFailed:
            return False  # somebody removed the table
        if found != self._fingerprint:
            return False  # also when it was never taken: replacing is harmless
        self._generation = now
        return True

    def remember(self) -> None:
        """Take the fingerprint that later foreign changes are judged by (idle-time work)."""
        if self._applied is not None and not self._fingerprint:
            found = _fingerprint()
            if generation() == self._generation:
                self._fingerprint = found

    @staticmethod
    def remove() -> None:
        """Take the whole table away."""
        if shutil.which("nft"):  # without it nothing of ours can be there
            table = f"table inet {names.TABLE}"
            run("-f", "-", script=f"{table} {{}}\ndelete {table}\n")


def _fingerprint() -> str:
    listing = run("-s", "list", "table", "inet", names.TABLE)
    return hashlib.sha256(listing.encode()).hexdigest()
