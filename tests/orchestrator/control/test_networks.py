"""Addresses, networks, endpoints, ports, global services: what nodes are told."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address, IPv4Network

import pytest

from orchestrator.errors import Invalid
from tests.orchestrator.control.builders import CHECK, project, replicas
from tests.orchestrator.control.rig import Behaviour, Rig

pytestmark = pytest.mark.looptime

TWO = {
    "networks": {
        "front": {"name": "app_front"},
        "back": {"name": "app_back", "internal": True},
    }
}


@pytest.mark.parametrize("subnet", [None, "10.99.0.0/20"])
async def test_tasks_get_addresses_that_lead_to_their_nodes(subnet):
    async with Rig(nodes=3) as rig:
        text = project(web=replicas(9))
        if subnet:
            text["networks"]["default"]["ipam"] = {"config": [{"subnet": subnet}]}
        await rig.up(text)
        await rig.deployed()
        (network,) = rig.cluster.networks.values()
        leases = rig.cluster.leases[network.id]
        assert len({t.addresses[network.id] for t in rig.live()}) == 9
        for task in rig.live():
            address = IPv4Address(task.addresses[network.id])
            (block,) = [c for c in leases if address in IPv4Network(c)]
            assert leases[block].node == task.node
            assert block.endswith("/26" if subnet else "/29")
        vip = rig.cluster.vips[network.id][("app", "web")].address
        first = next(IPv4Network(network.pool).subnets(new_prefix=26))
        assert IPv4Address(vip) in first
        # The first /20 is the nodes' own.
        assert network.pool == (subnet or "10.210.16.0/26")


async def test_only_nodes_that_need_a_network_hear_of_it():
    async with Rig(nodes=3) as rig:
        await rig.up(project(one={}))
        await rig.deployed()
        await rig.up(
            project(web={"ports": [{"target": 80, "published": "8080", "mode": "ingress"}]}),
            stack="pub",
        )
        await rig.deployed("pub")
        networks = {n.stack: n.id for n in rig.cluster.networks.values()}
        holders = {n for n, fake in rig.nodes.items() if networks["app"] in fake.wanted.networks}
        assert holders == {rig.live("one")[0].node}
        await rig.until(
            lambda: all(networks["pub"] in f.wanted.networks for f in rig.nodes.values())
        )
        key = f"pub/web/{networks['pub']}"
        await rig.until(
            lambda: any(e.ready for e in rig.nodes["n3"].wanted.services[key].endpoints)
        )
        service = rig.nodes["n3"].wanted.services[key]
        assert [p.published for p in service.ports] == [8080]
        assert len(service.endpoints) == 1
        assert service.endpoints[0].ready
        assert set(rig.nodes["n1"].wanted.peers) == {"n2", "n3"}


async def test_nodes_let_go_of_a_network_that_nothing_needs_any_more():
    async with Rig(nodes=3) as rig:
        web = {"ports": [{"target": 80, "published": "8080", "mode": "ingress"}]}
        await rig.up(project(web=web))
        await rig.deployed()
        await rig.until(lambda: all(f.wanted.networks for f in rig.nodes.values()))
        await rig.control.remove("app", volumes=False, timeout=None)
        # Also those that held it only for the published port, and without anything else moving.
        await rig.until(
            lambda: not any(f.wanted.networks or f.wanted.services for f in rig.nodes.values()),
            within=20,
        )


async def test_ports_are_delivered_on_the_gateway_network():
    async with Rig() as rig:
        web = {
            "networks": {"front": None, "back": None},
            "ports": [{"target": 80, "published": "8080", "mode": "ingress"}],
        }
        await rig.up(project(web=web, top=TWO))
        await rig.deployed()
        ids = {n.key: n.id for n in rig.cluster.networks.values()}
        services = rig.nodes["n1"].wanted.services
        assert services[f"app/web/{ids['front']}"].ports
        assert not services[f"app/web/{ids['back']}"].ports
        (assignment,) = rig.nodes["n1"].wanted.tasks.values()
        assert {n.network: n.gateway for n in assignment.networks} == {
            ids["front"]: True,
            ids["back"]: False,
        }
        assert sorted(n.interface for n in assignment.networks) == ["eth0", "eth1"]
        assert rig.nodes["n1"].wanted.networks[ids["back"]].internal


async def test_an_unready_task_is_no_endpoint_until_it_is_ready():
    async with Rig() as rig:
        rig.how["web"] = Behaviour(healthy=1.0)
        await rig.up(project(web=dict(CHECK)))
        await rig.until(lambda: "app-web-1 starting" in rig.history)
        await asyncio.sleep(0.5)
        (service,) = rig.nodes["n1"].wanted.services.values()
        assert not any(e.ready for e in service.endpoints)
        await rig.deployed()
        await asyncio.sleep(0.1)
        (service,) = rig.nodes["n1"].wanted.services.values()
        assert [e.ready for e in service.endpoints] == [True]
        rig.nodes["n1"].say(rig.live()[0].id, ready=False)
        await asyncio.sleep(0.1)
        (service,) = rig.nodes["n1"].wanted.services.values()
        assert [e.ready for e in service.endpoints] == [False]


async def test_endpoints_of_a_dead_node_get_no_traffic():
    async with Rig(nodes=3) as rig:
        db = {"volumes": [{"type": "volume", "source": "d", "target": "/d"}]}
        await rig.up(project(db=db, web=replicas(3), top={"volumes": {"d": {"name": "app_d"}}}))
        await rig.deployed()
        dead = rig.live("db")[0].node
        await rig.nodes[dead].crash()
        other = next(f for n, f in rig.nodes.items() if n != dead)
        (network,) = rig.cluster.networks

        def endpoints(name):
            return other.wanted.services[f"app/{name}/{network}"].endpoints

        await rig.until(lambda: not any(e.ready for e in endpoints("db")))
        await rig.until(lambda: all(e.node != dead for e in endpoints("web") if e.ready))


async def test_freed_addresses_rest_and_blocks_go_back():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        (network,) = rig.cluster.networks
        before = {t.addresses[network] for t in rig.live()}
        await rig.up(project(web=replicas(2, image="web:2")))
        await rig.deployed()
        await rig.until(lambda: len(rig.tasks()) == 2)
        assert not {t.addresses[network] for t in rig.live()} & before
        assert set(rig.cluster.resting[network]) == before
        await asyncio.sleep(70)
        assert not rig.cluster.resting[network]
        await rig.control.remove("app", volumes=False, timeout=0)
        assert (await rig.end_of()).ok
        assert rig.cluster.networks[network].retired
        await asyncio.sleep(100)
        assert not rig.cluster.networks
        assert not any(rig.cluster.leases.values())


async def test_an_address_rests_until_every_node_let_it_go():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web=replicas(2)))
        await rig.deployed()
        (network,) = rig.cluster.networks
        (survivor,) = [t for t in rig.live() if t.slot == 1]
        rig.fake_of(survivor).late = 200.0
        await rig.control.scale("app", {"web": 1})
        await rig.until(lambda: len(rig.tasks()) == 1, within=20)
        await asyncio.sleep(100)
        assert len(rig.cluster.resting[network]) == 1
        await asyncio.sleep(400)
        assert not rig.cluster.resting[network]


async def test_a_stack_that_comes_back_takes_its_network_over():
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        (network,) = rig.cluster.networks
        address = rig.live()[0].addresses[network]
        await rig.control.remove("app", volumes=False, timeout=0)
        assert (await rig.end_of()).ok
        await rig.up(project(web={}))
        await rig.deployed()
        assert list(rig.cluster.networks) == [network]
        assert rig.live()[0].addresses[network] != address


async def test_a_fixed_address_goes_from_the_old_task_to_the_new_one():
    async with Rig(nodes=2) as rig:
        top = {
            "networks": {
                "default": {"name": "app_d", "ipam": {"config": [{"subnet": "172.30.0.0/24"}]}}
            }
        }
        web = {"networks": {"default": {"ipv4_address": "172.30.0.66"}}}
        await rig.up(project(web=web, other=replicas(3), top=top))
        await rig.deployed()
        (network,) = rig.cluster.networks
        assert rig.live("web")[0].addresses[network] == "172.30.0.66"
        await rig.up(project(web={**web, "image": "web:2"}, other=replicas(3), top=top))
        await rig.deployed(within=30)
        assert rig.live("web")[0].addresses[network] == "172.30.0.66"
        assert rig.live("web")[0].release == 2
        with pytest.raises(Invalid):
            await rig.control.scale("app", {"web": 2})


async def test_a_small_pool_is_used_up_by_single_addresses_and_says_so():
    async with Rig(nodes=2) as rig:
        top = {
            "networks": {
                "default": {"name": "app_d", "ipam": {"config": [{"subnet": "172.30.0.0/29"}]}}
            }
        }
        # Eight addresses: network, first and broadcast are not used, one is the VIP.
        await rig.up(project(web=replicas(6), top=top))
        await rig.until(lambda: len([t for t in rig.tasks() if t.node]) == 4)
        waiting = [t for t in rig.tasks() if not t.node]
        assert len(waiting) == 2
        assert waiting[0].pending_reason == (
            "network app_d has no free address left in 172.30.0.0/29, the subnet its file gives it;"
            " a larger subnet helps, or none: then it grows by itself"
        )
        (network,) = rig.cluster.networks
        assert all(c.endswith("/32") for c in rig.cluster.leases[network])
        await rig.control.scale("app", {"web": 4})
        await rig.deployed()


async def test_overlapping_subnets_are_refused_by_name():
    async with Rig() as rig:

        def with_subnet(subnet, name):
            return {
                "networks": {"default": {"name": name, "ipam": {"config": [{"subnet": subnet}]}}}
            }

        await rig.up(project(web={}, top=with_subnet("172.30.0.0/24", "one")))
        await rig.deployed()
        with pytest.raises(Invalid) as refused:
            await rig.up(project(web={}, top=with_subnet("172.30.0.0/16", "two")), stack="second")
        (problem,) = refused.value.problems
        assert "172.30.0.0/16 of network default overlaps 172.30.0.0/24 of network one" in (
            problem.message
        )


async def test_external_networks_join_stacks():
    async with Rig() as rig:
        top = {"networks": {"default": {"name": "shared", "external": True}}}
        with pytest.raises(Invalid, match="external network shared does not exist"):
            await rig.up(project(web={}, top=top), stack="guest")
        await rig.up(project(db={}, top={"networks": {"default": {"name": "shared"}}}))
        await rig.deployed()
        await rig.up(project(web={}, top=top), stack="guest")
        await rig.deployed("guest")
        (network,) = rig.cluster.networks
        await rig.until(
            lambda: {s.service for s in rig.nodes["n1"].wanted.services.values()} == {"db", "web"}
        )
        assert network in rig.live("web", "guest")[0].addresses


async def test_host_ports_go_from_the_old_task_to_the_new_one():
    async with Rig() as rig:
        web = {"ports": [{"target": 80, "published": "8080", "mode": "host", "protocol": "tcp"}]}
        await rig.up(project(web=web))
        await rig.deployed()
        assert rig.live()[0].host_ports == {"80/tcp": 8080}
        await rig.up(project(web={**web, "image": "web:2"}))
        await rig.deployed()
        assert rig.live()[0].release == 2
        await rig.control.scale("app", {"web": 2})
        await rig.until(lambda: any(t.pending_reason for t in rig.tasks()))
        (waiting,) = [t for t in rig.tasks() if not t.node]
        assert "port 8080/tcp taken by another task (host1)" in waiting.pending_reason


async def test_a_global_service_runs_once_on_every_node_that_fits():
    async with Rig(nodes=3) as rig:
        node = rig.cluster.nodes["n2"]
        await rig.put_node(node.model_copy(update={"labels": {"disk": "ssd"}}))
        await rig.until(lambda: rig.cluster.nodes["n2"].labels)
        everywhere = {"deploy": {"mode": "global"}}
        some = {
            "deploy": {"mode": "global", "placement": {"constraints": ["node.labels.disk != ssd"]}}
        }
        await rig.up(project(all=everywhere, some=some))
        await rig.deployed()
        assert {t.node for t in rig.live("all")} == {"n1", "n2", "n3"}
        assert {t.node for t in rig.live("some")} == {"n1", "n3"}
        assert len({t.name for t in rig.live("all")}) == 3
        await rig.put_node(rig.cluster.nodes["n3"].model_copy(update={"labels": {"disk": "ssd"}}))
        await rig.until(lambda: {t.node for t in rig.tasks("some")} == {"n1"})
        await rig.nodes["n3"].crash()
        await asyncio.sleep(30)
        assert {t.node for t in rig.live("all")} == {"n1", "n2", "n3"}, "kept for its node"
        await rig.nodes["n3"].connect()
        await rig.until(lambda: len(rig.ready("all")) == 3)
        fourth = await rig.add_node(4)
        await rig.until(lambda: "n4" in rig.cluster.nodes)
        await rig.nodes[fourth.id].connect()
        await rig.until(lambda: {t.node for t in rig.ready("all")} == set(rig.nodes))


async def test_local_restarts_are_endless_only_where_there_is_no_other_node():
    async with Rig() as rig:
        await rig.up(project(web={}))
        await rig.deployed()
        (assignment,) = rig.nodes["n1"].wanted.tasks.values()
        assert assignment.local_restarts is None
        second = await rig.add_node(2)
        await rig.until(lambda: "n2" in rig.cluster.nodes)
        await rig.nodes[second.id].connect()
        await rig.until(
            lambda: [a.local_restarts for a in rig.nodes["n1"].wanted.tasks.values()] == [10]
        )


async def test_a_failed_task_is_placed_elsewhere_after_a_pause_that_grows():
    async with Rig(nodes=2) as rig:
        await rig.up(project(web={"restart": "always"}))
        await rig.deployed()
        rig.how["web"] = Behaviour(exit_code=1, runs_for=0.0)
        first = rig.live()[0]
        rig.fake_of(first).end(first.id, 1)
        await rig.until(lambda: rig.live() and rig.live()[0].id != first.id, within=1)
        assert rig.live()[0].node != first.node
        await asyncio.sleep(30)
        started = [n for n, line in enumerate(rig.history) if line == "app-web-1 starting"]
        # 0, 1, 2, 4, 8, 16 seconds between them.
        assert 5 <= len(started) <= 7
        assert len(rig.tasks()) <= 2, "history of a slot is bounded"


async def test_volumes_bring_services_together_and_per_slot_ones_do_not():
    async with Rig(nodes=3) as rig:
        volume = {"volumes": [{"type": "volume", "source": "data", "target": "/data"}]}
        top = {"volumes": {"data": {"name": "app_data"}}}
        await rig.up(project(a=replicas(2, **volume), b=dict(volume), top=top))
        await rig.deployed()
        assert len({t.node for t in rig.live()}) == 1
        top = {"volumes": {"data": {"name": "two_data", "x-corral": {"per_slot": True}}}}
        await rig.up(project(a=replicas(3, **volume), top=top), stack="two")
        await rig.deployed("two")
        assert len({t.node for t in rig.live("a", "two")}) == 3
        assert {"two_data-1", "two_data-2", "two_data-3"} <= set(rig.cluster.volumes)
        assert {
            v
            for f in rig.nodes.values()
            for t in f.wanted.tasks.values()
            for v in t.volumes.values()
        } == {"app_data", "two_data-1", "two_data-2", "two_data-3"}


async def test_host_ports_share_a_node_only_on_different_addresses():
    def on(address):
        port = {"target": 80, "published": "8080", "mode": "host"}
        return {"ports": [port if address is None else {**port, "host_ip": address}]}

    async with Rig() as rig:
        for stack, address in (("a", "192.0.2.1"), ("b", "192.0.2.2")):
            await rig.up(project(web=on(address)), stack=stack)
            await rig.deployed(stack)
        with pytest.raises(Invalid) as refused:
            await rig.up(project(web=on(None)), stack="c")
        assert "8080/tcp of the machine is already held by a/web" in str(refused.value)
