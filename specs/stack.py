"""The canonical desired state of one stack: what corral runs.

``specs.compose`` turns files into the canonical Compose mapping (every key of
the language); ``specs.compile.stack`` turns that mapping into a :class:`StackSpec`,
which holds exactly the keys corral honours. The store, the scheduler and the
wire speak only these models.

Units: bytes for sizes, seconds (float) for durations, cores (float) for CPUs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from specs import templates
from specs.autoscale import AutoscaleSpec
from specs.base import Model
from specs.patience import KEEP_OLD, MONITOR
from specs.schedule import ScheduleSpec

if TYPE_CHECKING:
    from collections.abc import Mapping


class Condition(StrEnum):
    """What ``depends_on`` waits for."""

    STARTED = "service_started"
    HEALTHY = "service_healthy"
    COMPLETED = "service_completed_successfully"


class Dependency(Model):
    """One edge of ``depends_on``. ``deadline``: seconds it is waited for; 0 = the release's."""

    condition: Condition = Condition.STARTED
    restart: bool = False
    required: bool = True
    deadline: float = 0.0


class Healthcheck(Model):
    """``test`` starts with CMD, CMD-SHELL or NONE; durations in seconds."""

    test: tuple[str, ...] = ()  # empty: the image's test with these intervals
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0
    start_interval: float = 5.0

    @property
    def disabled(self) -> bool:
        """Whether ``test: NONE`` or ``disable: true`` switched the image's check off."""
        return self.test[:1] == ("NONE",)

    def with_test(self, test: tuple[str, ...]) -> Healthcheck:
        """Return the same intervals for another test."""
        return self.model_copy(update={"test": test})


class RestartPolicy(Model):
    """When a run that ended is followed by another.

    ``condition`` none | on-failure | any. ``max_attempts`` None = unlimited,
    counted over ``window`` seconds (0 = for ever). ``delay`` is the first
    back-off step; it doubles to 60 s and is forgotten after 10 s alive.
    """

    condition: Literal["none", "on-failure", "any"] = "any"
    delay: float = 0.1
    max_attempts: int | None = None
    window: float = 0.0


class Limits(Model):
    """Hard ceilings; None = unlimited."""

    cpus: float | None = None
    memory: int | None = None
    pids: int | None = None


class Reservations(Model):
    """What the scheduler sets aside on the node."""

    cpus: float = 0.0
    memory: int = 0


class Resources(Model):
    limits: Limits = Limits()
    reservations: Reservations = Reservations()


class Mount(Model):
    """A mount in the container.

    ``source`` is the volume *key* in ``StackSpec.volumes`` for volume (None =
    anonymous), an absolute path on the node for bind, unused for tmpfs.
    """

    type: Literal["volume", "bind", "tmpfs"]
    target: str
    source: str | None = None
    relative: bool = False  # written as a relative path: real only on the CLI's machine
    read_only: bool = False
    nocopy: bool = False
    subpath: str = ""
    create_host_path: bool = True
    propagation: str = "rprivate"
    tmpfs_size: int | None = None
    tmpfs_mode: int | None = None
    tmpfs_options: tuple[str, ...] = ()  # as mount(8) has them: exec, uid=5, noatime
    recursive: Literal["enabled", "disabled", "readonly"] = "enabled"  # of a bind's own mounts


class FileRef(Model):
    """A secret or config mounted in the container.

    ``source`` is the key in the stack; ``target`` an absolute path; ``uid`` and
    ``gid`` None = the container's resolved user; ``mode`` None = 0444, whatever
    the mode of the file it came from (docs/adr/0010 says why).
    """

    source: str
    target: str
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    content: str = ""  # id of the immutable content version, filled in by the controller


class NetworkAttachment(Model):
    """A service's membership of one network; ``network`` is the key in the stack."""

    network: str
    aliases: tuple[str, ...] = ()
    ipv4_address: str | None = None
    gw_priority: int = 0
    priority: int = 0


class Port(Model):
    """One published (or merely exposed) container port.

    ``published`` None = any free port. ``mode`` ingress: every node answers;
    host: only the task's node. ``host_ip`` None = all addresses.
    """

    target: int
    published: int | None = None
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    host_ip: str | None = None
    mode: Literal["ingress", "host"] = "ingress"


class Ulimit(Model):
    soft: int
    hard: int


class Device(Model):
    source: str
    target: str
    permissions: str = "rwm"


class Hook(Model):
    """A command of ``post_start`` or ``pre_stop``: run inside the container, as `exec` does."""

    command: tuple[str, ...]
    user: str | None = None  # None = the container's
    privileged: bool = False
    working_dir: str | None = None
    environment: dict[str, str] = Field(default_factory=dict)  # besides the container's


class LogConfig(Model):
    driver: Literal["local", "json-file", "none"] = "local"
    max_size: int = 10 * 1024 * 1024
    max_files: int = 5


class TaskSpec(Model):
    """Everything a node must know to run one replica; immutable, hashed.

    A different hash means a replacement; so nothing that may change in place
    (replicas, placement, update settings) belongs here. ``image`` is a
    reference; ``image_digest`` the manifest digest the release pinned.
    ``command`` and ``entrypoint`` None = the image's; an empty tuple = explicitly none.
    """

    image: str
    image_digest: str = ""
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    user: str | None = None
    group_add: tuple[str, ...] = ()
    working_dir: str | None = None
    hostname: str | None = None
    domainname: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    secrets: tuple[FileRef, ...] = ()
    configs: tuple[FileRef, ...] = ()
    networks: tuple[NetworkAttachment, ...] = ()
    network_mode: Literal["overlay", "none", "host", "partner"] = "overlay"
    ports: tuple[Port, ...] = ()
    expose: tuple[Port, ...] = ()
    healthcheck: Healthcheck | None = None
    restart: RestartPolicy = RestartPolicy()
    resources: Resources = Resources()
    stop_signal: str | None = None
    stop_grace: float = 10.0
    init: bool = False
    tty: bool = False
    stdin_open: bool = False
    read_only: bool = False
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: Literal["default", "unconfined"] = "default"
    apparmor: Literal["default", "unconfined"] = "default"  # where the node has AppArmor
    devices: tuple[Device, ...] = ()
    ulimits: dict[str, Ulimit] = Field(default_factory=dict)
    sysctls: dict[str, str] = Field(default_factory=dict)
    shm_size: int = 64 * 1024 * 1024
    oom_score_adj: int | None = None
    extra_hosts: tuple[tuple[str, str], ...] = ()  # (name, address)
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    logging: LogConfig = LogConfig()
    on_unhealthy: Literal["policy", "restart", "keep"] = "policy"
    security: Literal["default", "baseline", "restricted"] = "default"
    exclusive: bool = False  # its one copy runs under a lease only (specs/lease.py)
    on_reboot: Literal["run", "keep"] = "run"  # what the end of its machine interrupted
    pid: Literal["private", "host", "partner"] = "private"
    ipc: Literal["private", "host", "none", "shareable", "partner"] = "private"
    uts: Literal["private", "host"] = "private"
    cpuset: str = ""  # processors it may run on: 0-3,5
    cpu_shares: int | None = None
    memory_swap: int | None = None  # memory and swap together; -1 = any swap
    links: tuple[tuple[str, str], ...] = ()  # (name it knows, name on its networks)
    partner: str = ""  # the service that lends it the namespaces that are "partner" above
    platform: str = ""  # os/arch of its nodes, empty = any
    post_start: tuple[Hook, ...] = ()  # after the start of each run, one after the other
    pre_stop: tuple[Hook, ...] = ()  # before the stop signal, within stop_grace

    @property
    def lent(self) -> str:
        """Return what its partner lends it, for people."""
        kinds = {"network": self.network_mode, "processes": self.pid, "memory": self.ipc}
        return " and ".join(word for word, whose in kinds.items() if whose == "partner")

    @property
    def restarts_unhealthy(self) -> bool:
        """Whether an unhealthy container is restarted in place, or only marked.

        What the file says wins; else any restart policy restarts it, as after a crash.
        """
        if self.on_unhealthy == "policy":
            return self.restart.condition != "none"
        return self.on_unhealthy == "restart"


class BuildSpec(Model):
    """How to make a service's image with buildah; paths are absolute on the CLI's machine."""

    context: str
    dockerfile: str = "Dockerfile"  # absolute, or relative to the context
    dockerfile_inline: str | None = None
    args: dict[str, str] = Field(default_factory=dict)
    target: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    tags: tuple[str, ...] = ()
    no_cache: bool = False
    pull: bool = False
    network: str | None = None
    extra_hosts: tuple[tuple[str, str], ...] = ()


class Placement(Model):
    constraints: tuple[str, ...] = ()  # Swarm's language: node.labels.x == y
    preferences: tuple[str, ...] = ()  # spread over these, e.g. node.labels.zone
    max_replicas_per_node: int = 0
    strategy: Literal["spread", "pack"] = "spread"  # over nodes, or filling one after the other


class Canary(Model):
    """New tasks beside the old ones, before the others are replaced.

    ``replicas``: how many slots have one. ``weight``: percent of new connections that these get
    together; 0 = as many as any other task. ``promote``: when the others follow; ``manual``: when
    somebody says so, ``after``: ``seconds`` after all of them served, ``healthy``: once all have
    been ready for ``seconds`` without a break.
    """

    replicas: int = 1
    weight: int = 0
    promote: Literal["manual", "after", "healthy"] = "manual"
    seconds: float = 0.0


class UpdateConfig(Model):
    """How tasks are replaced. ``parallelism`` 0 = all at once; durations in seconds.

    ``blue_green``: all new tasks come up beside the old ones without traffic, which then goes
    over at once; the old ones stay ``keep_old`` seconds more.
    """

    parallelism: int = 1
    delay: float = 0.0
    order: Literal["stop-first", "start-first"] = "stop-first"
    failure_action: Literal["pause", "continue", "rollback"] = "pause"
    monitor: float = MONITOR
    max_failure_ratio: float = 0.0
    canary: Canary | None = None
    blue_green: bool = False
    keep_old: float = KEEP_OLD

    @property
    def trial(self) -> float:
        """For how long after it came up the end of a new task counts against the update, seconds.

        At least until the next one may follow: what dies within ``delay`` is this update's fault.
        ``monitor`` 0: it is not watched.
        """
        return max(self.monitor, self.delay) if self.monitor > 0 else 0.0


class ServiceSpec(Model):
    """One service: the template of its tasks, and how many, where, in which order."""

    name: str
    task: TaskSpec
    build: BuildSpec | None = None
    pull_policy: str = "missing"  # always | never | missing | build | daily | weekly | every_N
    mode: Literal["replicated", "global", "replicated-job", "global-job"] = "replicated"
    replicas: int = 1  # of a replicated-job: how often it is to complete
    max_concurrent: int | None = None  # of a replicated-job: tasks at a time; None = all
    container_name: str | None = None
    depends_on: dict[str, Dependency] = Field(default_factory=dict)
    placement: Placement = Placement()
    update: UpdateConfig = UpdateConfig()
    rollback: UpdateConfig = UpdateConfig()
    endpoint_mode: Literal["vip", "dnsrr"] = "vip"
    attach: bool = True
    labels: dict[str, str] = Field(default_factory=dict)  # deploy.labels: of no container
    autoscale: AutoscaleSpec | None = None  # how many there are goes by what they use
    schedule: ScheduleSpec | None = None  # it stands not by: each due time begins a one-off

    @property
    def per_node(self) -> bool:
        """Whether it has one task on each node it may be on, and not a number of them."""
        return self.mode in ("global", "global-job")

    @property
    def is_job(self) -> bool:
        """Whether its tasks are to complete: what did is done for this spec, and nothing serves."""
        return self.mode in ("replicated-job", "global-job")


class NetworkSpec(Model):
    """``name`` is the real name (STACK_KEY unless given); ``subnets`` in CIDR form."""

    name: str
    external: bool = False
    internal: bool = False
    attachable: bool = False
    encrypted: bool = False
    subnets: tuple[str, ...] = ()
    mtu: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)


class VolumeSpec(Model):
    name: str
    external: bool = False
    per_slot: bool = False
    labels: dict[str, str] = Field(default_factory=dict)
    options: dict[str, str] = Field(default_factory=dict)  # driver_opts, see specs.shares
    relative: bool = False  # a bind of the project's own folder: real on the client's machine only

    @property
    def per_node(self) -> bool:
        """Whether its name says the node: each has one of its own."""
        return templates.names_nodes(self.name)

    def names(self, stack: str, node: Mapping[str, str] | None = None) -> str:
        """Return a regular expression of the names of the volumes that it is in a stack.

        ``node``: the words of a node, for those there alone.
        """
        pattern = templates.volume_name_pattern(templates.fill(self.name, node or {}), stack)
        suffixed = self.per_slot and templates.SLOT not in templates.words(self.name)
        return f"{pattern}-[0-9]+" if suffixed else pattern

    def name_of(self, service: str, slot: int, node: Mapping[str, str]) -> str:
        """Return the volume's real name for a task; ``node`` are the words of its node."""
        words = {**node, "Service.Name": service, templates.SLOT: str(slot)}
        name = templates.fill(self.name, words)
        suffixed = self.per_slot and templates.SLOT not in templates.words(self.name)
        return f"{name}-{slot}" if suffixed else name


class ContentSpec(Model):
    """A secret or config; ``content`` is the id of its version, never the value."""

    name: str
    external: bool = False
    content: str = ""
    labels: dict[str, str] = Field(default_factory=dict)


class Carried(Model):
    """Why and how a service goes on in a release that was not about it.

    ``why``: orphan (the files do not have it), off (its profile is off), unasked (`up`
    named others). ``hash`` is the one its tasks have. Where the release's networks and
    volumes mean something else by a key of its, ``networks`` and ``volumes`` say what it means.
    """

    why: Literal["orphan", "off", "unasked"]
    hash: str
    networks: dict[str, NetworkSpec] = Field(default_factory=dict)
    volumes: dict[str, VolumeSpec] = Field(default_factory=dict)


class StackSpec(Model):
    """One stack, complete. Keys of the mappings are the keys of the Compose file.

    ``carried`` names those of ``services`` that come from an earlier release, image and
    contents pinned: what runs of them is left as it is.
    """

    name: str
    services: dict[str, ServiceSpec] = Field(default_factory=dict)
    networks: dict[str, NetworkSpec] = Field(default_factory=dict)
    volumes: dict[str, VolumeSpec] = Field(default_factory=dict)
    secrets: dict[str, ContentSpec] = Field(default_factory=dict)
    configs: dict[str, ContentSpec] = Field(default_factory=dict)
    deadline: float = 600.0  # x-corral.deadline: seconds without progress before a release fails
    carried: dict[str, Carried] = Field(default_factory=dict)

    @property
    def orphans(self) -> tuple[str, ...]:
        """Return the services that run on although the files do not have them."""
        return tuple(sorted(n for n, carried in self.carried.items() if carried.why == "orphan"))

    def seen_by(self, service: str) -> StackSpec:
        """Return the stack with networks and volumes as one service means them."""
        carried = self.carried.get(service)
        if carried is None or not (carried.networks or carried.volumes):
            return self
        return self.model_copy(
            update={
                "networks": {**self.networks, **carried.networks},
                "volumes": {**self.volumes, **carried.volumes},
            }
        )

    def all_networks(self) -> list[tuple[str, NetworkSpec]]:
        """Return every network with its key, also those that only a carried service means."""
        found = list(self.networks.items())
        for carried in self.carried.values():
            found += [item for item in carried.networks.items() if item not in found]
        return found


def task_name(stack: str, service: ServiceSpec, slot: int) -> str:
    """Return the container's name: ``container_name`` or Compose's STACK-SERVICE-SLOT."""
    return service.container_name or f"{stack}-{service.name}-{slot}"
