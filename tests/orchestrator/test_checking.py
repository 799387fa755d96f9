"""`state check` and `state export`: every planted fault is found, and a healthy store has none."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from orchestrator.control import checking
from orchestrator.keys.sealing import SealedStore
from orchestrator.keys.vault import load as load_vault
from orchestrator.store import keys
from orchestrator.store.base import Snapshot, Stored
from orchestrator.store.sqlite import SqliteStore
from specs import load
from tests.orchestrator.test_controller import agent, all_ready, config, running

__all__ = ["agent", "config"]

CANARY = "hunter2-canary"
SHOP = f"""
name: shop
services:
  web:
    image: nginx:1
    environment: {{PASSWORD: {CANARY}}}
    command: [serve, --token={CANARY}]
    entrypoint: [/bin/sh, -c, {CANARY}]
    labels: {{label: {CANARY}}}
    healthcheck: {{test: [CMD, curl, {CANARY}]}}
    volumes: ["data:/data"]
    secrets: [key]
    configs: [conf]
    extra_hosts: ["{CANARY}.example:192.0.2.1"]
    deploy: {{replicas: 2, labels: {{deployed: {CANARY}}}}}
volumes: {{data: {{labels: {{volume: {CANARY}}}}}}}
networks: {{default: {{labels: {{network: {CANARY}}}}}}}
secrets: {{key: {{external: true}}}}
configs: {{conf: {{external: true}}}}
"""


@pytest.fixture
async def store(config, agent, tmp_path):
    """Return a controller's records as a mapping, its sealer, and what it exports."""
    async with running(config) as client:
        await client.until("/v1/nodes", lambda a: a["nodes"])
        for name, kind in (("key", "secret"), ("conf", "config")):
            made = {"name": name, "data": "aHVudGVyMi1jYW5hcnk=", "secret": kind == "secret"}
            await client.call("POST", f"/v1/{kind}s", json=made)
        (tmp_path / "compose.yaml").write_text(SHOP)
        project = await asyncio.to_thread(load, [tmp_path / "compose.yaml"])
        body = {"key": "k", "project": project.model}
        await client.call("POST", "/v1/stacks/shop/releases", json=body)
        await client.until("/v1/stacks/shop/tasks", all_ready(2))
        exported = (await client.call("GET", "/v1/state/export"))["state"]
    sealer = load_vault(config.key, fresh=False)
    engine = await SqliteStore.open(config.database)
    snapshot = await SealedStore(engine, sealer).list("/")
    await engine.close()
    return {entry.key: entry.value for entry in snapshot.entries}, sealer, exported


def found(records, sealer, *, wall=None):
    entries = tuple(Stored(key, value, 1) for key, value in sorted(records.items()))
    snapshot = Snapshot(7, entries)
    return checking.check(snapshot, sealer, wall=time.time() if wall is None else wall)


def first(records, prefix):
    return min(key for key in records if key.startswith(prefix))


def changed(records, where, /, **more):
    """Change fields of a record."""
    records[where] = json.dumps({**json.loads(records[where]), **more}).encode()


def twice(records, prefix, **more):
    """Add a record like another one, under a key of its own."""
    key = first(records, prefix)
    made = {**json.loads(records[key]), **more}
    records[f"{key.rpartition('/')[0]}/{made.get('id', 'other')}"] = json.dumps(made).encode()


def node(records, *of_its_own):
    """Add a node that is like the first one but for this."""
    other = {"overlay": "10.210.0.9", "address": "root@b", "name": "b"}
    twice(records, keys.NODES, id="n-x", **{name: other[name] for name in of_its_own})


def no_part(records):
    for key in [key for key in records if key.startswith(keys.PARTS)]:
        del records[key]


def no_release(records):
    for key in [key for key in records if key.startswith(keys.RELEASES)]:
        del records[key]


def no_network(records):
    del records[first(records, keys.NETWORKS)]


def same_address(records):
    one, other, *_ = sorted(key for key in records if key.startswith(keys.TASKS))
    changed(records, other, addresses=json.loads(records[one])["addresses"])


def outside(records):
    key = first(records, keys.TASKS)
    network = next(iter(json.loads(records[key])["addresses"]))
    changed(records, key, addresses={network: "192.0.2.1"})


def overlap(records):
    network = json.loads(records[first(records, keys.NETWORKS)])
    twice(records, keys.NETWORKS, id="n-other", name="other", pool=network["pool"])


def lease_overlap(records):
    lease = json.loads(records[first(records, keys.BLOCKS)])
    wider = lease["cidr"].partition("/")[0] + "/28"
    made = {**lease, "cidr": wider}
    records[keys.block(lease["network"], wider)] = json.dumps(made).encode()


def vip_of_a_task(records):
    key = first(records, keys.TASKS)
    network, address = next(iter(json.loads(records[key])["addresses"].items()))
    made = {"network": network, "stack": "shop", "service": "db", "address": address}
    records[keys.vip(network, "shop", "db")] = json.dumps(made).encode()


ERRORS = {
    "no cluster": (lambda r: r.pop(keys.CLUSTER), "is missing: whose store"),
    "cluster without id": (lambda r: changed(r, keys.CLUSTER, id=""), "names no cluster"),
    "cluster unreadable": (lambda r: r.update({keys.CLUSTER: b"x"}), "cannot be read"),
    "cluster's pool": (lambda r: changed(r, keys.CLUSTER, pool="x"), "cannot be read"),
    "ranges overlap": (lambda r: changed(r, keys.CLUSTER, more=["10.210.4.0/24"]), "overlap"),
    "epochs": (lambda r: changed(r, keys.CLUSTER, ended={"99": 1}), "says that epoch 99 ended"),
    "no authority": (lambda r: r.pop(keys.AUTHORITY), "could not prove"),
    "authority": (lambda r: changed(r, keys.AUTHORITY, key="eA=="), "does not open"),
    "unreadable": (lambda r: r.update({first(r, keys.NODES): b"{"}), "cannot be read"),
    "misplaced": (lambda r: changed(r, first(r, keys.STACKS), name="x"), "holds the record of"),
    "no part": (no_part, "of a spec that is not there"),
    "no release": (no_release, "names release 1, which is not there"),
    "no stack": (lambda r: r.pop(first(r, keys.STACKS)), "of stack shop, which is not there"),
    "two names": (lambda r: node(r, "overlay", "address"), "are both name"),
    "two homes": (lambda r: node(r, "overlay", "name"), "the controller's machine"),
    "two overlays": (lambda r: node(r, "name", "address"), "are both overlay"),
    "a pool twice": (overlap, "has addresses of another network"),
    "no pool": (lambda r: changed(r, first(r, keys.NETWORKS), pool="x"), "a pool that is none"),
    "leased twice": (lease_overlap, "leased addresses twice"),
    "no network": (no_network, "of a network that is not there"),
    "an address twice": (same_address, "both have"),
    "an address outside": (outside, "none of network shop_default"),
    "a task's VIP": (vip_of_a_task, "both have"),
    "content": (lambda r: changed(r, first(r, keys.CONTENTS), sealed="eA=="), "does not open"),
    "no content": (lambda r: r.pop(first(r, keys.CONTENTS)), "whose content is not there"),
}  # fmt: skip
WARNINGS = {
    "unknown": (lambda r: r.update({"/later/x": b"{}"}), "this version does not know"),
    "newer": (lambda r: changed(r, first(r, keys.NODES), colour="x"), "of a newer version"),
    "lost home": (lambda r: changed(r, keys.volume("shop_data"), node="n-gone"), "has left"),
    "lost lease": (lambda r: changed(r, first(r, keys.BLOCKS), node="n-gone"), "has left"),
    "lost node": (lambda r: changed(r, first(r, keys.TASKS), node="n-gone"), "has left"),
}


async def test_every_planted_fault_is_found(store):
    records, sealer, _ = store
    healthy = await asyncio.to_thread(found, records, sealer)
    assert healthy.findings == ()
    assert (healthy.records, healthy.revision) == (len(records), 7)
    for severity, cases in (("error", ERRORS), ("warning", WARNINGS)):
        for name, (plant, words) in cases.items():
            broken = dict(records)
            plant(broken)
            check = found(broken, sealer)
            hits = [one for one in check.findings if words in one.what]
            assert hits, (name, check.findings)
            assert severity in {one.severity for one in hits}, name
            assert bool(check.errors) == (severity == "error"), (name, check.findings)


async def test_an_authority_near_its_end_is_told_of(store):
    records, sealer, _ = store
    years = 20 * 365 * 86400.0
    (soon,) = found(records, sealer, wall=time.time() + years - 86400 * 20).findings
    assert (soon.severity, soon.key) == ("warning", keys.AUTHORITY)
    (over,) = found(records, sealer, wall=time.time() + years + 86400).errors
    assert "ended on" in over.what


async def test_an_export_has_what_there_is_and_no_secret(store):
    _, _, exported = store
    said = json.dumps(exported)
    assert CANARY not in said, "law: wherever a file puts it"
    assert "aHVudGVyMi1jYW5hcnk=" not in said
    (stack,) = exported["stacks"]
    (web,) = stack["services"]
    assert (web["environment"], web["secrets"], web["configs"]) == (["PASSWORD"], ["key"], ["conf"])
    assert web["mounts"] == [{"type": "volume", "source": "data", "target": "/data"}]
    assert [task["state"] for task in stack["tasks"]] == ["running", "running"]
    assert {one["kind"] for one in exported["contents"]} == {"secret", "config"}
    assert exported["nodes"][0]["name"]
    assert exported["volumes"][0]["name"] == "shop_data"


async def test_an_address_leased_out_of_a_block_is_in_order(store):
    """Where no block is left, another node gets single ones of one (planning/addresses.py)."""
    records, sealer, _ = store
    lease = json.loads(records[first(records, keys.BLOCKS)])
    single = lease["cidr"].partition("/")[0] + "/32"
    made = {**lease, "cidr": single, "node": json.loads(records[first(records, keys.NODES)])["id"]}
    records = {**records, keys.block(lease["network"], single): json.dumps(made).encode()}
    assert found(records, sealer).errors == ()
