"""One node of the network tests: a NodeNetwork driven by JSON lines on stdin."""

import asyncio
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path

from agent.network.node import NodeNetwork
from agent.network.wanted import Wanted
from specs.wire import Assignment, NetworkState, NodeSelf, Peer, ServiceEndpoints

MODELS = {
    "networks": NetworkState,
    "services": ServiceEndpoints,
    "peers": Peer,
    "assignments": Assignment,
}


KNOWN = {}


def state(data):
    """Objects that did not change stay the same objects, as in the agent's own table."""
    found = {"me": NodeSelf.model_validate(data["me"]), "ready": data["ready"]}
    for key, model in MODELS.items():
        found[key] = {}
        for k, v in data[key].items():
            raw, made = KNOWN.get((key, k), (None, None))
            if raw != v:
                made = model.model_validate(v)
                KNOWN[key, k] = (v, made)
            found[key][k] = made
    return Wanted(**found)


def spent():
    """CPU seconds of this process and of the programs it ran: what others do costs nothing."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


async def handle(network, request):  # noqa: PLR0911 - a table of commands
    match request["op"]:
        case "apply":
            wanted = state(request["state"])
            begun = spent()
            await network.apply(wanted)
            return {"seconds": spent() - begun, "warnings": network.warnings}
        case "attach":
            seconds = []
            for data in request["assignments"]:
                begun = spent()
                found = await network.attach(Assignment.model_validate(data))
                seconds.append(spent() - begun)
            return {
                "netns": str(found.netns),
                "resolv_conf": found.resolv_conf,
                "hosts": found.hosts,
                "seconds": seconds,
            }
        case "detach":
            begun = spent()
            async with asyncio.TaskGroup() as group:
                for task in request["tasks"]:
                    group.create_task(network.detach(task))
            return {"seconds": spent() - begun}
        case "adopt":
            await network.adopt(set(request["tasks"]))
        case "verify":
            return {"repaired": await network.verify()}
        case "trouble":
            return {
                "trouble": network.trouble,
                "warnings": network.warnings,
                "mtu": network.underlay_mtu,
            }
        case "leave":
            await network.leave()
        case "check_ports":
            from specs.stack import Port

            ports = [Port.model_validate(port) for port in request["ports"]]
            return {"found": await network.check_ports(ports)}
        case "dns":
            return await asyncio.to_thread(network._resolver.stats) | {
                "pid": await asyncio.to_thread(lambda: network._resolver.pid)
            }
    return {}


class Watch:
    """NodeNetwork.run(), which a test may suspend to see verify() alone at work."""

    def __init__(self, network):
        self.network, self.task = network, None

    def set(self, on):
        if self.task and not on:
            self.task.cancel()
            self.task = None
        elif on and not self.task:
            self.task = asyncio.create_task(self.network.run())


async def serve(run_dir, state_dir):
    network = NodeNetwork(run_dir, state_dir, resolv_conf=run_dir / "resolv.conf")
    watch = Watch(network)
    watch.set(True)
    loop = asyncio.get_running_loop()
    print(json.dumps({"pid": os.getpid()}), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            request = json.loads(line)
            if request["op"] == "watch":
                watch.set(request["on"])
                answer = {}
            else:
                answer = await handle(network, request) or {}
        except Exception as error:
            answer = {
                "error": str(error),
                "kind": type(error).__name__,
                "trace": traceback.format_exc(),
            }
        print(json.dumps(answer), flush=True)
    watch.set(False)
    await network.close()


def main(argv):
    asyncio.run(serve(*map(Path, argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
