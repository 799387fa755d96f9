"""Refuse fixed addresses and gateways that are not in the subnet of their network.

A network without a subnet gets one of the cluster's choice, which no file can know: an address
there is not judged here. What is no address or subnet at all is :mod:`specs.compile.naming`'s.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

from specs.compile.values import mapping

if TYPE_CHECKING:
    from specs.compile.verdicts import Verdicts

Json = dict[str, Any]


def check(project: Json, verdicts: Verdicts) -> None:
    """Refuse what cannot be an address of the network it is asked for in."""
    subnets: dict[str, IPv4Network] = {}
    for key, raw in mapping(project.get("networks")).items():
        for index, pool in enumerate(mapping(mapping(raw).get("ipam")).get("config") or ()):
            subnet = _network(pool.get("subnet"))
            if subnet is None:
                continue
            subnets.setdefault(key, subnet)
            for field in ("gateway", "ip_range"):
                text = pool.get(field)
                inside = _network(text)
                if inside is not None and not inside.subnet_of(subnet):
                    verdicts.refuse(
                        f"networks.{key}.ipam.config[{index}].{field}",
                        f"{field} {text} is not in the subnet {subnet}",
                        "leave it out: corral needs none",
                        code="bad-address",
                    )
    for name, service in mapping(project.get("services")).items():
        for key, options in mapping(mapping(service).get("networks")).items():
            text, subnet = mapping(options).get("ipv4_address"), subnets.get(key)
            fixed = _network(text)
            if fixed is None or subnet is None:
                continue
            first, last = subnet.network_address, subnet.broadcast_address
            ends = subnet.prefixlen < 31 and IPv4Address(text) in (first, last)
            if not fixed.subnet_of(subnet) or ends:
                verdicts.refuse(
                    f"services.{name}.networks.{key}.ipv4_address",
                    f"{text} is not an address of network {key}, whose subnet is {subnet}"
                    + (": its first and last stand for the whole" if ends else ""),
                    f"write one from {first + 1} to {last - 1}" if subnet.prefixlen < 31 else "",
                    code="bad-address",
                )


def _network(text: Any) -> IPv4Network | None:
    try:
        return IPv4Network(text, strict=False) if isinstance(text, str) and text else None
    except ValueError:
        return None
