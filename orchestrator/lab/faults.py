"""What is wrong with a lab on purpose, as data and as documents for nft, ip and tc (pure).

A fault of a network lives in the bridge's own namespace or on a host's link, so links keep their
carrier, as with a broken switch upstream. ``lab.py`` makes what is recorded here so and removes
it; ``host.py`` makes it so again when a host boots. What is only done once (a kill) is no state
and stands in ``killing.py``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from orchestrator.lab.layout import SUBNET, LabError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from orchestrator.lab.layout import HostAddress

SMALLEST_MTU, LARGEST_MTU = 576, 1499  # bytes an IP packet may have; an Ethernet's are 1500
SLOWEST, FASTEST = 8, 10_000_000  # kbit/s
LONGEST_QUEUE = 10_000  # ms
FURTHEST_CLOCK = 50 * 365 * 86400  # seconds off; the kernel's own limits are not far away
BURST = 4096  # bytes: two large frames; more makes a slow link quick for small talk


@dataclass(frozen=True, order=True)
class Drop:
    """``percent`` of the frames from ``source`` to ``target`` are lost; empty = any host."""

    kind: ClassVar[str] = "drop"
    source: str = ""
    target: str = ""
    percent: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.percent <= 100:
            raise LabError(f"a loss of {self.percent} %: use 1 to 100")

    def about(self, host: str) -> bool:
        """Tell whether ``heal host`` ends this fault."""
        return host in (self.source, self.target)

    def __str__(self) -> str:
        return f"{self.source or 'any'} -> {self.target or 'any'} loses {self.percent} %"


@dataclass(frozen=True, order=True)
class Slow:
    """A host's link carries ``rate`` kbit/s each way; frames wait at most ``queue`` ms, then go."""

    kind: ClassVar[str] = "slow"
    host: str
    rate: int = 1000
    queue: int = 400

    def __post_init__(self) -> None:
        if not SLOWEST <= self.rate <= FASTEST:
            raise LabError(f"a rate of {self.rate} kbit/s: use {SLOWEST} to {FASTEST}")
        if not 1 <= self.queue <= LONGEST_QUEUE:
            raise LabError(f"a queue of {self.queue} ms: use 1 to {LONGEST_QUEUE}")

    def about(self, host: str) -> bool:
        return host == self.host

    def __str__(self) -> str:
        return f"{self.rate} kbit/s each way, a queue of {self.queue} ms"


@dataclass(frozen=True, order=True)
class SmallMtu:
    """A host's path carries IP packets of ``mtu`` bytes. ``silent``: larger ones just vanish.

    Else a router on the path does what routers do: it splits those that may be split and answers
    the others with "fragmentation needed".
    """

    kind: ClassVar[str] = "mtu"
    host: str
    mtu: int = 1300
    silent: bool = False

    def __post_init__(self) -> None:
        if not SMALLEST_MTU <= self.mtu <= LARGEST_MTU:
            raise LabError(f"an MTU of {self.mtu}: use {SMALLEST_MTU} to {LARGEST_MTU}")

    def about(self, host: str) -> bool:
        return host == self.host

    def __str__(self) -> str:
        how = "without a word" if self.silent else 'says "fragmentation needed"'
        return f"a path of {self.mtu} bytes, {how}"


@dataclass(frozen=True, order=True)
class WrongClock:
    """What a host's programs in Python take for the time is ``seconds`` off, from power-on."""

    kind: ClassVar[str] = "clock"
    host: str
    seconds: int

    def __post_init__(self) -> None:
        if not 0 < abs(self.seconds) <= FURTHEST_CLOCK:
            raise LabError(f"a clock {self.seconds} s off: use 1 to {FURTHEST_CLOCK}, or negative")

    def about(self, host: str) -> bool:
        return host == self.host

    def __str__(self) -> str:
        return f"a clock {self.seconds:+d} s off, from power-on"


@dataclass(frozen=True, order=True)
class FullDisk:
    """A host's own disk has not a block left."""

    kind: ClassVar[str] = "disk-full"
    host: str

    def about(self, host: str) -> bool:
        return host == self.host

    def __str__(self) -> str:
        return "a full disk"


Fault = Drop | Slow | SmallMtu | WrongClock | FullDisk
KINDS: dict[str, type[Any]] = {k.kind: k for k in (Drop, Slow, SmallMtu, WrongClock, FullDisk)}


def described(fault: Fault) -> dict[str, Any]:
    """Return a fault as plain data: ``kind`` and its fields."""
    return {"kind": fault.kind, **asdict(fault)}


def recorded(record: Mapping[str, Any]) -> set[Fault]:
    """Return the faults of a lab's record; one of an older release knows drops only."""
    found: set[Fault] = {Drop(**fields) for fields in record["drops"]}
    for fields in record.get("faults", ()):
        found.add(KINDS[fields["kind"]](**{k: v for k, v in fields.items() if k != "kind"}))
    return found


def record(faults: Iterable[Fault]) -> dict[str, list[dict[str, Any]]]:
    """Return faults as a lab's record has them."""
    found = ordered(faults)
    return {
        "drops": [asdict(fault) for fault in found if isinstance(fault, Drop)],
        "faults": [described(fault) for fault in found if not isinstance(fault, Drop)],
    }


def ordered(faults: Iterable[Fault]) -> list[Fault]:
    return sorted(faults, key=lambda fault: (fault.kind, str(fault), str(described(fault))))


def cut(host: str, peer: str = "", *, one_way: bool = False) -> set[Fault]:
    """Return the drops that cut ``host`` off, from everybody or from ``peer`` only."""
    return lose(host, 100, peer, one_way=one_way)


def lose(host: str, percent: int, peer: str = "", *, one_way: bool = False) -> set[Fault]:
    """Return the drops that lose ``percent`` of a host's frames, or of those to and from a peer."""
    out = Drop(host, peer, percent)
    return {out} if one_way else {out, Drop(peer, host, percent)}


# ---- the bridge ---------------------------------------------------------------------------------


def table(faults: Iterable[Fault], addresses: Iterable[HostAddress] = (), bridge: str = "") -> str:
    """Return the nft script that makes the bridge lose and reroute exactly this.

    ``bridge``: the bridge's own hardware address, to which what a router looks at is sent.
    """
    found = ordered(faults)
    drops = [fault for fault in found if isinstance(fault, Drop)]
    lines = ["table bridge lab", "delete table bridge lab", "table bridge lab {"]
    macs = {address.host: address.mac for address in addresses}
    lines.append("chain prerouting { type filter hook prerouting priority 0; policy accept;")
    for fault in found:
        if isinstance(fault, SmallMtu):
            lines += _too_large(fault, macs, bridge, drops)
    lines.append("}")
    for chain in ("forward", "input", "output"):
        lines.append(f"chain {chain} {{ type filter hook {chain} priority 0; policy accept;")
        lines += [rule for drop in drops if (rule := _rule(chain, drop))]
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
    return " ".join([*match, *_some(drop), "drop"])


def _some(drop: Drop) -> list[str]:
    return [f"numgen random mod 100 < {drop.percent}"] if drop.percent < 100 else []


def _too_large(
    fault: SmallMtu, macs: Mapping[str, str], bridge: str, drops: list[Drop]
) -> list[str]:
    """Return what becomes of a host's packets that are too large, both ways."""
    rules = []
    for way in (f'iifname "{fault.host}"', f"ether daddr {macs[fault.host]}"):
        for size in (f"ip length > {fault.mtu}", f"ip6 length > {fault.mtu - 40}"):
            if fault.silent:
                rules.append(f"{way} {size} drop")
                continue
            # What takes the router's way does not pass the rules between two ports any more.
            rules += [
                f'{way} iifname "{drop.source}" ether daddr {macs[drop.target]} {size}'
                f" {' '.join([*_some(drop), 'drop'])}"
                for drop in drops
                if drop.source and drop.target
            ]
            rules.append(f"{way} {size} ether daddr set {bridge} meta pkttype set host")
    return rules


def routes(fault: SmallMtu, address: HostAddress) -> tuple[list[str], list[str]]:
    """Return the lines for ``ip`` and ``ip -6`` that make the bridge a router of a smaller MTU.

    Each pair begins with rules; a rule's preference is the MTU, so of two the smaller one counts.
    """
    number = 1000 + int(address.ipv4.rpartition(".")[2])
    prefix6 = address.ipv6.rpartition(":")[0] + ":/64"
    found = []
    for own, net in ((address.ipv4, f"{SUBNET}.0/24"), (address.ipv6, prefix6)):
        found.append(
            [
                f"rule add pref {fault.mtu} from {own} lookup {number}",
                f"rule add pref {fault.mtu} to {own} lookup {number}",
                f"route add {net} dev br0 mtu lock {fault.mtu} table {number}",
            ]
        )
    return found[0], found[1]


def undone(lines: Iterable[str]) -> list[str]:
    """Return the lines that take away what these add."""
    return [line.replace(" add ", " delete ", 1) for line in lines]


# ---- a host's link ------------------------------------------------------------------------------


def shaped(fault: Slow, device: str) -> str:
    """Return the tc line that makes a device slow."""
    burst = max(BURST, fault.rate * 125 // 100)  # as much as ten milliseconds carry
    return (
        f"qdisc replace dev {device} root tbf"
        f" rate {fault.rate}kbit burst {burst} latency {fault.queue}ms"
    )


def splits(faults: Iterable[Fault]) -> bool:
    """Tell whether hosts must make each packet themselves: one of 64 KiB has no path's size."""
    return any(isinstance(fault, SmallMtu) and fault.silent for fault in faults)


# ---- a host's clock -----------------------------------------------------------------------------

CLOCK_FOLDER = "/run/lab-clock"  # in the host
# Nobody can give a host another kernel's clock, and libfaketime breaks Python's sleep: what runs
# in Python, and that is all of corral, reads a file beside each look at the clock.
CLOCK_PROGRAM = f"""\
import time
_now, _now_ns, _get, _get_ns = time.time, time.time_ns, time.clock_gettime, time.clock_gettime_ns
def _off():
    try:
        with open("{CLOCK_FOLDER}/seconds") as file:
            return int(file.read() or 0)
    except (OSError, ValueError):
        return 0
time.time = lambda: _now() + _off()
time.time_ns = lambda: _now_ns() + _off() * 1_000_000_000
time.clock_gettime = lambda which: _get(which) + (_off() if which == time.CLOCK_REALTIME else 0)
time.clock_gettime_ns = lambda which: (
    _get_ns(which) + (_off() * 1_000_000_000 if which == time.CLOCK_REALTIME else 0)
)
"""
