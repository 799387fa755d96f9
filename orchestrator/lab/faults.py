"""What the lab's bridge drops, as data and as an nft document (pure).

The rules live in the bridge's own network namespace, so links keep their carrier, as with a
broken switch upstream. Called by ``lab.py``; the whole table is replaced in one transaction at
every change.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Drop:
    """``percent`` of the frames from ``source`` to ``target`` are lost; empty = any host."""

    source: str = ""
    target: str = ""
    percent: int = 100

    def about(self, host: str) -> bool:
        """Tell whether ``heal host`` ends this fault."""
        return host in (self.source, self.target)


def cut(host: str, peer: str = "", *, one_way: bool = False) -> set[Drop]:
    """Return the drops that cut ``host`` off, from everybody or from ``peer`` only."""
    out = Drop(source=host, target=peer)
    return {out} if one_way else {out, Drop(source=peer, target=host)}


def table(drops: set[Drop]) -> str:
    """Return the nft script that makes the bridge drop exactly this."""
    lines = ["table bridge lab", "delete table bridge lab", "table bridge lab {"]
    for chain in ("forward", "input", "output"):
        lines.append(f"chain {chain} {{ type filter hook {chain} priority 0; policy accept;")
        lines += [rule for drop in sorted(drops) if (rule := _rule(chain, drop))]
        lines.append("}")
    return "\n".join([*lines, "}", ""])


def _rule(chain: str, drop: Drop) -> str:
    match = []
    if drop.source:
        if chain == "output":  # made by the bridge itself, not by a host
            return ""
        match.append(f'iifname "{drop.source}"')
    if drop.target:
        if chain == "input":
            return ""
        match.append(f'oifname "{drop.target}"')
    if drop.percent < 100:
        match.append(f"numgen random mod 100 < {drop.percent}")
    return " ".join([*match, "drop"])
