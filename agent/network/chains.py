"""The chains of our table that never change: where a packet goes through us, in order. Pure.

They only look things up in sets and maps that rules.py fills. Why each hook and
order is as it is: agent/network/README.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.network import names
from specs.wire import BLOB_PORT

if TYPE_CHECKING:
    from agent.network.wanted import Wanted


def base(wanted: Wanted) -> str:
    """Return the chains that do not depend on services, tasks and networks."""
    veths, overlay = f'"{names.VETH_PREFIX}*"', f'"{names.VXLAN}"'
    published, ingress = f"{names.PUBLISHED:#x}", f"{names.INGRESS_MASK:#x}"
    clear = f"{0xFFFFFFFF ^ names.INGRESS_MASK:#x}"
    frame = f"udp dport {names.VXLAN_PORT} @th,96,24 {names.VNI:#x}"
    # By our VNI, not by the port alone: another overlay on this machine keeps its own peers.
    vxlan_guard = f"""
    {frame} ip saddr != @peer_underlays counter drop
    {frame} ip6 saddr != @peer_underlays6 counter drop"""
    # The kernel takes a packet for any of its addresses from any device: who routes the cluster's
    # range to this machine would be at the doors that are meant for members.
    outsiders = (
        f'iifname != "lo" ip daddr {wanted.gateway} counter drop' if wanted.in_overlay else ""
    )
    # Who named the machine (host-gateway) reaches what listens there, but not who manages it.
    managing = f"22, {BLOB_PORT}"
    datagrams = f"udp dport != {names.VXLAN_PORT}" if wanted.in_overlay else "meta l4proto udp"
    echo = "icmp type echo-request counter drop" if wanted.silent else ""
    prohibit = "counter reject with icmpx admin-prohibited"
    return f"""
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    ip saddr @fenced counter drop
    iifname {veths} goto guard_task
    iifname {overlay} jump zones
    iifname != "lo" ip daddr 127.0.0.0/8 counter drop
{vxlan_guard if wanted.in_overlay else ""}
  }}
  chain guard_task {{
    iifname . ip saddr @owned ip daddr != 127.0.0.0/8 accept
    counter drop
  }}
  chain marks {{
    type filter hook prerouting priority mangle; policy accept;
    iifname {overlay} ct state new ip saddr != @pools ct mark set ether saddr map @ingress
    iifname {veths} ct direction reply ct mark & {ingress} != 0 meta mark set ct mark & {ingress}
    ct state new jump refusals
  }}
  chain marks_output {{
    type filter hook output priority mangle; policy accept;
    ct state new jump refusals
  }}
  chain refusals {{
    ip daddr @vip_dead goto refuse
    fib daddr type local ip daddr . meta l4proto . th dport @port_dead_ip goto refuse
    fib daddr type local meta l4proto . th dport @port_dead goto refuse
  }}
  chain refuse {{
    meta l4proto tcp counter reject with tcp reset
    counter reject with icmp port-unreachable
  }}
  chain dstnat {{
    type nat hook prerouting priority dstnat - 5; policy accept;
    ip daddr vmap @vips
    fib daddr type local goto local_ports
  }}
  chain dstnat_output {{
    type nat hook output priority -105; policy accept;
    fib daddr type local goto local_ports
  }}
  chain local_ports {{
    ip daddr . meta l4proto . th dport vmap @ports_ip
    meta l4proto . th dport vmap @ports
  }}
  chain input {{
    type filter hook input priority filter - 5; policy accept;
    iifname {veths} goto input_task
    iifname {overlay} goto input_overlay
    {outsiders}
  }}
  chain input_task {{
    ct state established,related accept
    ip saddr @internal {prohibit}
    ip saddr @host_clients tcp dport != {{ {managing} }} accept
    ip saddr @host_clients {datagrams} accept
    {prohibit}
  }}
  chain input_overlay {{
    {echo}
    ct state established,related accept
    ip saddr @peer_overlays accept
    counter drop
  }}
  chain forward {{
    type filter hook forward priority filter - 5; policy accept;
    iifname {veths} goto from_task
    oifname {veths} goto to_task
    iifname {overlay} goto from_overlay
    oifname {overlay} goto to_overlay
  }}
  chain from_task {{
    ct state established,related accept
    ip saddr . ip daddr @same_net accept
    ip saddr @internal counter drop
    ct mark & {published} == {published} accept
    ip daddr @pools {prohibit}
    ip daddr 169.254.0.0/16 counter drop
    ip daddr @members meta l4proto . th dport != @published {prohibit}
  }}
  chain to_task {{
    ct state established,related accept
    ct mark & {published} == {published} accept
    iifname {overlay} ip saddr . ip daddr @same_net accept
    iifname {overlay} ip saddr @peer_overlays accept
    iifname {overlay} ct mark & {ingress} != 0 accept
    counter drop
  }}
  chain from_overlay {{
    ct state established,related accept
    counter drop
  }}
  chain to_overlay {{
    ct state established,related accept
    ct mark & {published} == {published} accept
    counter drop
  }}
  chain unmark {{
    type filter hook postrouting priority mangle; policy accept;
    oifname {overlay} meta mark & {ingress} != 0 meta mark set meta mark & {clear}
  }}
  chain srcnat {{
    type nat hook postrouting priority srcnat - 5; policy accept;
    ct mark & {published} == {published} ip saddr @insiders snat ip to {wanted.gateway}
    ct mark & {published} == {published} fib saddr type local snat ip to {wanted.gateway}
    ip saddr . ip daddr @hairpin snat ip to ip saddr map @hairpin_vip
    ip saddr @egress ip daddr != @pools oifname != "cr-*" masquerade
  }}
"""
