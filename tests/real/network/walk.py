"""Walks through rulesets in the namespace it is started in: ours beside what `nft` makes of each.

Prints JSON: how many changes went without `nft`, how many were refused, which states differ.
"""

import json
import random
import sys

from agent.network import elements, nft
from agent.network.rules import SETS, Ruleset, full

BASE = "  chain forward { type filter hook forward priority 0; policy accept; }"
POOLS = (
    *("10.210.0.0/16", "10.210.16.0/26", "10.210.16.64/26", "10.211.0.0/24", "10.211.1.0/24"),
    *("10.212.0.0/24", "127.0.0.0/8", "0.0.0.0/8", "255.0.0.0/8", "10.77.0.1", "10.77.0.2"),
)
KEYS = {
    "host_clients": ("10.1.1.1", "10.1.1.2"),
    "owned": tuple(f'"cr-e{n}" . 10.1.1.{n}' for n in range(5)),
    "same_net": tuple(f"{a} . {a}" for a in ("10.1.0.0/26", "10.2.0.0/24", "10.3.3.3/32")),
    "pools": POOLS,
    "egress": POOLS[:6],
    "insiders": POOLS,
    "hairpin": ("10.1.1.1 . 10.1.1.1", "10.1.1.2 . 10.1.1.2"),
    "published": ("tcp . 80", "udp . 53", "sctp . 65535"),
    "port_dead_ip": ("10.1.1.1 . tcp . 80", "10.1.1.1 . udp . 80"),
    "hairpin_vip": ("5.5.5.5", "6.6.6.6"),
}


def some(rng, name):
    """Return a few elements of a set; now and then one more than before would be enough."""
    chosen = rng.sample(KEYS[name], rng.randint(0, len(KEYS[name])))
    return {key: rng.choice(("1.1.1.1", "2.2.2.2")) if SETS[name][2] else "" for key in chosen}


def listed():
    """Return the table's sets, their elements in an order of their own."""
    objects = json.loads(nft.run("-j", "list", "table", "inet", "corral"))["nftables"]
    sets = [one.get("set") or one.get("map") for one in objects]
    return {
        one["name"]: sorted(json.dumps(element) for element in one.get("elem", ()))
        for one in sets
        if one is not None
    }


def main(seed, steps):
    rng = random.Random(seed)
    told = {"ours": 0, "refused": 0, "wrong": []}
    move = nft.Table._move

    def counted(table, moves):
        done = move(table, moves)
        told["ours" if done else "refused"] += 1
        return done

    nft.Table._move = counted
    table = nft.Table()
    sets = {name: {} for name in SETS}
    for step in range(steps):
        for name in rng.sample(sorted(KEYS), 3):
            sets[name] = some(rng, name)
        wanted = Ruleset(BASE, dict(sets), {"zones": ()}, {})
        assert step == 0 or elements.moves(table._applied, wanted) is not None
        table.apply(wanted)
        ours = listed()
        if not table.intact():
            told["wrong"].append([step, "the generation"])
        nft.run("-f", "-", script=full(wanted))
        if ours != (theirs := listed()):
            differ = [name for name in theirs if ours.get(name) != theirs[name]]
            told["wrong"].append([step, differ])
        # The table goes on from what it made itself.
        table = nft.Table()
        table.apply(wanted)
    print(json.dumps(told))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
