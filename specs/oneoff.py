"""One-offs: a service's container beside its replicas, for one command, as ``run`` makes it.

A one-off is a record of its own (:class:`OneOff`), not a task of the stack: nothing that counts
replicas, rolls out or heals ever sees it. Its ``task`` is an ordinary one, for the node and for
people; what it is made of stands in the record itself, so that it depends on no release. It runs
once: it is never started again, by no policy, reboot or lost node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from specs.api import ClientMachine, Deploy, ProblemRow, Progress
from specs.base import Model
from specs.stack import NetworkSpec, ServiceSpec, StackSpec, VolumeSpec
from specs.states import FINAL, UNPLACED, Desired, TaskState
from specs.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping

REMEMBERED = 60.0  # seconds one that was removed by itself is known still: who asks has its code


class StartOneOff(Model):
    """What ``run`` asks for; the service in ``deploy.project`` is as the command line changed it.

    ``deploy.services`` names the service alone. ``dependencies``: what it depends on is looked at
    first, and answered with ``OneOffProgress.needs`` where it is not as the file says.
    """

    deploy: Deploy
    service: str
    name: str = ""  # the container's; empty = STACK-SERVICE-run-ID
    remove: bool = False  # once it has ended
    aliases: bool = False  # it answers to its service's name beside the service's tasks
    attach: bool = False  # its command waits until somebody listens
    dependencies: bool = True
    here: tuple[str, ...] = ()  # targets of binds whose source is a path of the client's machine


class OneOffProgress(Progress):
    """One line of the answer to :class:`StartOneOff`; ``task`` of the last is the id.

    ``needs`` (and not ``ok``): these services are to be brought up first; nothing was made.
    """

    needs: tuple[str, ...] = ()
    warnings: tuple[ProblemRow, ...] = ()


class ActOnOneOffs(Model):
    """Do something to one-offs: those ``names``, or all of ``services``, or with neither all."""

    action: Literal["stop", "remove"]
    names: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    timeout: float | None = None


class ActedOn(Model):
    """Names of the one-offs it was about."""

    names: tuple[str, ...] = ()


class TaskStreams(Model):
    """How to listen to a task's own process."""

    tty: bool = False
    stdin_open: bool = False


class KeptOneOff(Model):
    """What a node keeps of a one-off beside its assignment; nothing here is executed.

    With that it is what a store that was lost can know it by again: `corral state adopt`.
    """

    service: str
    key: str = ""
    networks: dict[str, NetworkSpec] = Field(default_factory=dict)
    volumes: dict[str, VolumeSpec] = Field(default_factory=dict)
    client: ClientMachine = ClientMachine()
    remove: bool = False
    aliases: bool = False
    created_at: float = 0.0


class OneOff(Model):
    """The store's record of one one-off. ``service`` is complete: image and contents pinned."""

    task: Task
    service: ServiceSpec
    key: str = ""  # of the request that made it
    networks: dict[str, NetworkSpec] = Field(default_factory=dict)
    volumes: dict[str, VolumeSpec] = Field(default_factory=dict)
    client: ClientMachine = ClientMachine()
    remove: bool = False
    aliases: bool = False
    attach: bool = False
    gone_at: float = 0.0  # nothing of it is left on its node since; only its end is remembered

    @property
    def id(self) -> str:
        return self.task.id

    @property
    def stack(self) -> str:
        return self.task.stack

    @property
    def addresses(self) -> Mapping[str, str]:
        return self.task.addresses

    @property
    def shown(self) -> bool:
        """Whether people see it: not one that only its end is known of, or that is going."""
        return not self.gone_at and self.task.desired is not Desired.REMOVED

    @property
    def over(self) -> bool:
        """Whether its command has ended, or never will begin."""
        return self.task.state in FINAL

    @property
    def spec(self) -> StackSpec:
        """Return it as a stack of this one service."""
        return StackSpec(
            name=self.stack,
            services={self.service.name: self.service},
            networks=self.networks,
            volumes=self.volumes,
        )

    @property
    def kept(self) -> KeptOneOff:
        """Return what its node is to keep of it."""
        return KeptOneOff(
            service=self.service.name,
            key=self.key,
            networks=self.networks,
            volumes=self.volumes,
            client=self.client,
            remove=self.remove,
            aliases=self.aliases,
            created_at=self.task.created_at,
        )

    def with_task(self, task: Task) -> OneOff:
        """Return it with another state of its task."""
        return self.model_copy(update={"task": task})

    def stopped(self, grace: float | None) -> OneOff:
        """Return it asked to end."""
        task = self.task
        if task.state in UNPLACED:
            return self.with_task(task.moved(TaskState.SHUTDOWN))
        if task.desired is Desired.RUNNING:
            task = task.with_desired(Desired.SHUTDOWN)
        return self.with_task(task.with_grace(grace))

    def removed(self, *, grace: float | None = None) -> OneOff:
        """Return it on its way out."""
        task = self.task
        if task.desired is Desired.REMOVED:
            return self
        return self.with_task(task.with_desired(Desired.REMOVED).with_grace(grace))

    def gone(self, at: float) -> OneOff:
        """Return what is remembered of it once nothing of it is left: how it ended."""
        task = self.task.model_copy(update={"node": None, "addresses": {}, "host_ports": {}})
        return self.model_copy(update={"task": task, "gone_at": at})
