"""Notice other programs' firewalls that would drop our traffic, and say so in words.

An accept in our table cannot overrule a drop in another's: every base chain of
a hook must let a packet pass. This reads nft's listing (iptables-nft included)
and names chains of others with a drop policy on the hooks we need.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agent.network import names, nft

if TYPE_CHECKING:
    from agent.network.plan import Wanted


def findings(wanted: Wanted) -> tuple[str, ...]:
    """Return one sentence for each foreign base chain that drops by default."""
    try:
        listing = json.loads(nft.run("-j", "list", "chains"))
    except (nft.NftFailed, ValueError):
        return ()
    chains = [item["chain"] for item in listing.get("nftables", ()) if "chain" in item]
    return tuple(judge(chains, overlay=bool(wanted.me.overlay)))


def judge(chains: list[dict[str, Any]], *, overlay: bool) -> list[str]:
    """Return the sentences for these chains (as ``nft -j list chains`` describes them). Pure."""
    found = []
    for chain in chains:
        if chain.get("policy") != "drop" or chain.get("family") not in ("ip", "inet"):
            continue
        if chain.get("table") == names.TABLE:
            continue
        where = f"chain {chain['name']} of table {chain['family']} {chain['table']}"
        if chain.get("hook") == "forward":
            found.append(
                f"{where} drops forwarded packets by default: containers may be cut off; accept "
                f'packets with iifname "cr-*" and with oifname "cr-*" there'
            )
        elif chain.get("hook") == "input" and overlay:
            found.append(
                f"{where} drops incoming packets by default: other nodes may not reach this one; "
                f"accept udp dport {names.VXLAN_PORT} from the members' addresses there"
            )
    return sorted(found)
