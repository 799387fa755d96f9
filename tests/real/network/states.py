"""Terse makers of wanted states for the network tests."""

from __future__ import annotations

from specs.stack import Port, TaskSpec
from specs.states import Desired
from specs.wire import (
    Assignment,
    Block,
    Endpoint,
    NetworkState,
    NodeSelf,
    Peer,
    ServiceEndpoints,
    TaskNetwork,
)

POOLS = {"net-a": "10.210.16.0/20", "net-b": "10.210.32.0/20", "net-i": "10.210.48.0/20"}


def base(network: str) -> str:
    return ".".join(POOLS[network].split(".")[:2])


def address(network: str, node: int, number: int) -> str:
    """Address ``number`` of the block of node 1.. on a network (block 0 is for VIPs)."""
    third = int(POOLS[network].split(".")[2])
    return f"{base(network)}.{third}.{node * 64 + number}"


def vip(network: str, number: int) -> str:
    third = int(POOLS[network].split(".")[2])
    return f"{base(network)}.{third}.{number}"


class Cluster:
    """Builds what each node is told about the same cluster."""

    def __init__(self, nodes: dict[str, str], *, overlay: bool = True):
        self.nodes = nodes  # name -> underlay
        self.mtus: dict[str, int] = {}  # what nodes said of the devices with it
        self.overlay = overlay
        self.number = {name: place for place, name in enumerate(nodes, 1)}
        self.tasks: dict[str, tuple[str, Assignment]] = {}
        self.services: dict[str, ServiceEndpoints] = {}
        self.ready: dict[str, bool] = {}
        self.networks = {}
        for key, pool in POOLS.items():
            self.networks[key] = NetworkState(
                id=key,
                name=f"shop_{key[4:]}",
                stack="shop",
                key=key[4:],
                pool=pool,
                internal=key == "net-i",
                blocks=tuple(
                    Block(cidr=f"{address(key, n, 0)}/26", node=name)
                    for name, n in self.number.items()
                ),
            )

    def overlay_of(self, name: str) -> str:
        return f"10.210.0.{self.number[name]}" if self.overlay else ""

    def task(self, name, node, networks, *, number, service="", host_ports=(), **spec):
        links = tuple(
            TaskNetwork(
                network=network,
                address=address(network, self.number[node], number),
                interface=f"eth{place}",
                gateway=place == 0,
            )
            for place, network in enumerate(networks)
        )
        assignment = Assignment(
            id=name,
            stack="shop",
            service=service or name,
            slot=1,
            name=f"shop-{name}",
            spec=TaskSpec(image="none", **spec),
            desired=Desired.RUNNING,
            networks=links,
            host_ports=tuple(host_ports),
        )
        self.tasks[name] = (node, assignment)
        self.ready[name] = True
        return assignment

    def service(self, name, network, tasks, *, vip=None, ports=(), aliases=()):
        endpoints = []
        for task in tasks:
            node, assignment = self.tasks[task]
            place = next(n for n in assignment.networks if n.network == network)
            endpoints.append(
                Endpoint(
                    task=task,
                    name=assignment.name,
                    node=node,
                    address=place.address,
                    ready=self.ready[task],
                )
            )
        self.services[f"shop/{name}/{network}"] = ServiceEndpoints(
            stack="shop",
            service=name,
            network=network,
            vip=vip,
            aliases=tuple(aliases),
            endpoints=tuple(endpoints),
            ports=tuple(Port(**port) for port in ports),
        )

    def state(self, name):
        me = NodeSelf(
            node=name,
            name=name,
            underlay=self.nodes[name] if self.overlay else "",
            overlay=self.overlay_of(name),
        )
        peers = {
            other: Peer(
                node=other,
                name=other,
                underlay=underlay,
                overlay=self.overlay_of(other),
                mtu=self.mtus.get(other, 0),
            )
            for other, underlay in self.nodes.items()
            if other != name and self.overlay
        }

        def plain(items):
            return {key: value.model_dump(mode="json") for key, value in items.items()}

        mine = {key: a for key, (node, a) in self.tasks.items() if node == name}
        return {
            "me": me.model_dump(mode="json"),
            "networks": plain(self.networks),
            "services": plain(self.services),
            "peers": plain(peers),
            "assignments": plain(mine),
            "ready": {key: self.ready[key] for key in mine},
        }

    def netns(self, task):
        node, _ = self.tasks[task]
        return self.hosts[node].netns(task)

    def address(self, task, place=0):
        return self.tasks[task][1].networks[place].address

    def push(self, hosts=None):
        """Apply on every host, attach what is not attached yet."""
        for name, host in (hosts or self.hosts).items():
            if host.worker is None:
                continue
            host.call("apply", state=self.state(name))
            todo = [
                a.model_dump(mode="json")
                for task, (node, a) in self.tasks.items()
                if node == name and task not in host.attached
            ]
            if todo:
                host.attach_answer = host.call("attach", assignments=todo)
                host.attached |= {a["id"] for a in todo}
                host.call("apply", state=self.state(name))
