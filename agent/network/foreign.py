"""Other programs' firewalls that would drop our traffic: use their door, or say what to type.

An accept in our table cannot overrule a drop in another's: every base chain of
a hook must let a packet pass. Docker documents a chain for others' rules,
DOCKER-USER: there we let exactly our devices through (our own chains have
judged those packets already), tagged, and again whenever the rules are gone.
Of everything else we only tell. Called in the nft thread.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from agent.network import names, nft

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.network.wanted import Wanted

_DOOR = "DOCKER-USER"
_TIMEOUT = 10.0
_RULES = tuple(
    (*way, "-m", "comment", "--comment", "corral", "-j", "ACCEPT")
    for way in (("-i", "cr-+"), ("-o", "cr-+"))
)


def look(wanted: Wanted) -> tuple[str, ...]:
    """Open Docker's door where there is one; return one sentence for each obstacle left."""
    try:
        listing = json.loads(nft.run("-j", "list", "chains"))
    except (nft.NftFailed, ValueError):
        return ()
    chains = [item["chain"] for item in listing.get("nftables", ()) if "chain" in item]
    opened = any(_is_door(chain) for chain in chains) and _open_door()
    return tuple(
        judge(chains, overlay=wanted.in_overlay, opened=opened, pool=wanted.me.cluster_pool)
    )


def _is_door(chain: dict[str, Any]) -> bool:
    return bool((chain.get("family"), chain.get("table"), chain["name"]) == ("ip", "filter", _DOOR))


def _iptables(*arguments: str) -> bool:
    try:
        done = subprocess.run(
            ["iptables", "-w", *arguments], capture_output=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _open_door() -> bool:
    return all(_iptables("-C", _DOOR, *rule) or _iptables("-I", _DOOR, *rule) for rule in _RULES)


def leave() -> None:
    """Take our rules out of Docker's chain."""
    for rule in _RULES:
        while _iptables("-D", _DOOR, *rule):
            pass


def judge(chains: Iterable[dict[str, Any]], *, overlay: bool, opened: bool, pool: str) -> list[str]:
    """Return the sentences for these chains (as ``nft -j list chains`` describes them). Pure."""
    chains = list(chains)
    ufw = any(str(chain["name"]).startswith("ufw-") for chain in chains)
    found = []
    for chain in chains:
        if chain.get("table") == names.TABLE or chain.get("family") not in ("ip", "inet"):
            continue
        where = f"chain {chain['name']} of table {chain['family']} {chain['table']}"
        hook = chain.get("hook")
        if chain.get("table") == "firewalld":
            if hook == "forward":  # its reject is a rule at the end, not the policy
                found.append(
                    f"firewalld rejects forwarded packets it does not know; type: firewall-cmd "
                    f"--permanent --zone=trusted --add-source={pool} && firewall-cmd --reload"
                )
        elif chain.get("policy") != "drop":
            continue
        elif hook == "forward" and not (
            opened and (chain["family"], chain["table"]) == ("ip", "filter")
        ):
            advice = (
                f"type: ufw route allow from {pool} && ufw route allow to {pool}"
                if ufw
                else 'accept iifname "cr-*" and oifname "cr-*" there'
            )
            found.append(f"{where} drops forwarded packets, so containers may be cut off; {advice}")
        elif hook == "input" and overlay:
            advice = (
                f"type: ufw allow {names.VXLAN_PORT}/udp"
                if ufw
                else f"accept udp dport {names.VXLAN_PORT} from the other nodes there"
            )
            found.append(f"{where} drops incoming packets, so other nodes may be cut off; {advice}")
    return sorted(found)
