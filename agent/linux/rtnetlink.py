"""The numbers of rtnetlink under the names of the kernel's headers.

Only those that agent.network sends or reads. An attribute's number means something
only in its own message or nest, so every group names the header it is from.
"""

from __future__ import annotations

from typing import Final

# linux/rtnetlink.h: message types
RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_SETLINK: Final = 19
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30
RTM_NEWRULE: Final = 32
RTM_DELRULE: Final = 33
RTM_GETRULE: Final = 34

AF_BRIDGE: Final = 7
IFF_UP: Final = 0x1

# linux/if_link.h: of a device
IFLA_ADDRESS: Final = 1
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
IFLA_LINKINFO: Final = 18
IFLA_IFALIAS: Final = 20
IFLA_AF_SPEC: Final = 26
IFLA_GROUP: Final = 27
IFLA_NET_NS_FD: Final = 28
# inside IFLA_LINKINFO
IFLA_INFO_KIND: Final = 1
IFLA_INFO_DATA: Final = 2
# inside IFLA_INFO_DATA of a veth (linux/veth.h)
VETH_INFO_PEER: Final = 1
# inside IFLA_INFO_DATA of a VXLAN device
IFLA_VXLAN_ID: Final = 1
IFLA_VXLAN_LOCAL: Final = 4
IFLA_VXLAN_TTL: Final = 5
IFLA_VXLAN_LEARNING: Final = 7
IFLA_VXLAN_PORT: Final = 15
IFLA_VXLAN_LOCAL6: Final = 17
# inside IFLA_AF_SPEC, per address family
IFLA_INET_CONF: Final = 1
IFLA_INET6_ADDR_GEN_MODE: Final = 8
IN6_ADDR_GEN_MODE_NONE: Final = 1
# linux/ip.h: the position of each per-device sysctl inside IFLA_INET_CONF
IPV4_DEVCONF: Final = {
    "forwarding": 1,
    "accept_redirects": 4,
    "send_redirects": 6,
    "rp_filter": 8,
    "arp_ignore": 19,
    "route_localnet": 26,
}

# linux/if_addr.h
IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2

# linux/rtnetlink.h: of a route
RTA_DST: Final = 1
RTA_OIF: Final = 4
RTA_GATEWAY: Final = 5
RTA_PRIORITY: Final = 6
RTA_PREFSRC: Final = 7
RTA_TABLE: Final = 15
RTN_UNICAST: Final = 1
RTN_BLACKHOLE: Final = 6
RTNH_F_ONLINK: Final = 4
RT_SCOPE_UNIVERSE: Final = 0
RT_SCOPE_LINK: Final = 253

# linux/neighbour.h
NDA_DST: Final = 1
NDA_LLADDR: Final = 2
NUD_PERMANENT: Final = 0x80
NTF_SELF: Final = 2

# linux/fib_rules.h
FRA_GOTO: Final = 4
FRA_PRIORITY: Final = 6
FRA_FWMARK: Final = 10
FRA_TABLE: Final = 15
FRA_FWMASK: Final = 16
FRA_PROTOCOL: Final = 21
FR_ACT_TO_TBL: Final = 1
FR_ACT_GOTO: Final = 2
FR_ACT_NOP: Final = 3
