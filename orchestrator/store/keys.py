"""Where things are in the store: the only module that spells keys."""

from __future__ import annotations

from hashlib import sha256

CLUSTER = "/cluster"  # {"id", "epoch", "pool", "created_at"}
AUTHORITY = "/authority"  # {"key": sealed, "certificate": PEM}
BACKUP = "/backup"  # when backups are made, and their key, sealed (backups/making.py)
STACKS = "/stacks/"
RELEASES = "/releases/"
PARTS = "/parts/"  # content-addressed: StackSpec JSON by hash
TASKS = "/tasks/"
ONEOFFS = "/oneoffs/"
SCHEDULES = "/schedules/"
NODES = "/nodes/"
NETWORKS = "/networks/"
BLOCKS = "/blocks/"
RESTING = "/resting/"  # freed addresses, not to be given out yet
VIPS = "/vips/"
CONTENTS = "/contents/"  # sealed secret and config versions
VOLUMES = "/volumes/"
BOUND_PATHS = "/paths/"
IDEMPOTENCY = "/idempotency/"
EVENTS = "/events/"  # what happened: batches by stack (telling/journal.py)
NO_STACK = "_"  # for events that belong to none; no stack is called so


def stack(name: str) -> str:
    return f"{STACKS}{name}"


def release(stack: str, number: int) -> str:
    return f"{RELEASES}{stack}/{number:08d}"


def part(digest: str) -> str:
    return f"{PARTS}{digest}"


def task(stack: str, task_id: str) -> str:
    return f"{TASKS}{stack}/{task_id}"


def oneoff(stack: str, task_id: str) -> str:
    return f"{ONEOFFS}{stack}/{task_id}"


def schedule(stack: str, service: str) -> str:
    return f"{SCHEDULES}{stack}/{service}"


def node(node_id: str) -> str:
    return f"{NODES}{node_id}"


def network(network_id: str) -> str:
    return f"{NETWORKS}{network_id}"


def block(network_id: str, cidr: str) -> str:
    return f"{BLOCKS}{network_id}/{cidr.replace('/', '_')}"


def resting(network_id: str, address: str) -> str:
    return f"{RESTING}{network_id}/{address}"


def vip(network_id: str, stack: str, service: str) -> str:
    return f"{VIPS}{network_id}/{stack}/{service}"


def content(content_id: str) -> str:
    return f"{CONTENTS}{content_id}"


def volume(name: str) -> str:
    return f"{VOLUMES}{name}"


def bound_path(stack: str, path: str) -> str:
    # A path may be longer than a key, and holds what separates keys.
    return f"{BOUND_PATHS}{stack}/{sha256(path.encode()).hexdigest()[:32]}"


def idempotency(key: str) -> str:
    return f"{IDEMPOTENCY}{key}"


def events(stack: str) -> str:
    """Return the prefix of a stack's events; "" = of those that belong to none."""
    return f"{EVENTS}{stack or NO_STACK}/"


def event(stack: str, micros: int, count: int) -> str:
    """Return where so many events of one moment lie: the keys of a stack sort by time."""
    return f"{events(stack)}{micros:014x}-{count}"


def event_id(key: str) -> str:
    """Return the part of a key that says when."""
    return key.rpartition("/")[2].partition("-")[0]


def event_parts(key: str) -> tuple[str, int, int]:
    """Return the stack, the microseconds and the count in a key of events; zeros if it has none."""
    stack, _, rest = key.removeprefix(EVENTS).partition("/")
    stack = "" if stack == NO_STACK else stack
    when, _, count = rest.partition("-")
    try:
        return stack, int(when, 16), int(count)
    except ValueError:
        return stack, 0, 0
