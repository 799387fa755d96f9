"""Every number and name we put into the kernel, in one place.

Whatever is ours can be recognised by these alone, so that it can be found and
removed without remembering that it was made. agent/network/README.md has the
same tables with the reasons; change both together.
"""

from __future__ import annotations

import base64
import hashlib
from ipaddress import IPv4Address

TABLE = "corral"  # nft table, family inet
DEVICES = "cr-"  # what the name of every device of ours begins with
VXLAN = f"{DEVICES}vxlan"
VETH_PREFIX = f"{DEVICES}e"  # not "cr-v": the wildcard would catch cr-vxlan

VNI = 13710
VXLAN_PORT = 4789
VXLAN_OVERHEAD = {4: 50, 6: 70}  # bytes of outer headers, by the underlay's IP version
SMALLEST_MTU = 576  # of the overlay: what every IPv4 host must take; IPv6's 1280 is not needed

GATEWAY = "169.254.1.1"  # what containers believe their router is; nobody owns it
HOST_MAC = "02:63:72:00:00:01"  # of every host side veth end
RESOLVER = "127.0.0.11"
RESOLVER_ASIDE = 10053  # the resolver's port where the container itself serves names on 53

DOOMED_GROUP = 0x63720001  # interface group of links about to be removed together
BLACKHOLE_METRIC = 4096  # never in the place of somebody else's route of the same prefix
PROTOCOL = 98  # rtm_protocol and rule protocol of our routes and rules

# Mark bits (connection mark; the packet mark uses INGRESS_MASK only). Low bits belong to
# others: kube-proxy 14-15, Tailscale 16-23 of which we touch 21-23, never in its own packets.
PUBLISHED = 0x80000000  # the connection came through a published port
INGRESS_MASK = 0x7FE00000  # ten bits: which node the connection entered the overlay by
INGRESS_SHIFT = 21
MAX_INGRESS = 1023

RULE_SKIP = 11000  # unmarked packets jump over the per-peer rules to RULE_END
RULE_BASE = 11000  # + ingress index: fwmark -> table
RULE_END = 12100
ROUTE_TABLE_BASE = 21000  # + ingress index


def _short(text: str, width: int) -> str:
    digest = hashlib.blake2s(text.encode()).digest()
    return base64.b32encode(digest).decode().lower()[:width]


def task_prefix(task: str) -> str:
    """Return what the names of all host veth ends of ``task`` start with."""
    return VETH_PREFIX + _short(task, 7)


def veth(task: str, network: str) -> str:
    """Return the host side name of a task's link to a network (15 characters, IFNAMSIZ - 1)."""
    return task_prefix(task) + _short(network, 4)


def _mac(prefix: bytes, address: str) -> str:
    return (prefix + IPv4Address(address).packed).hex(":")


def task_mac(address: str) -> str:
    """Return the MAC of a container's end: a function of its address, so nobody has to ask."""
    return _mac(b"\x02\x72", address)


def overlay_mac(overlay: str) -> str:
    """Return the MAC of a node's VXLAN device, computable by every peer."""
    return _mac(b"\x02\x63", overlay)
