"""From the canonical Compose mapping to what corral runs.

``orchestrator.control`` calls :func:`compile_stack` for every deploy, ``corral
lint`` for every file. The verdict on each key comes from :mod:`specs.compile.support`;
what is honoured ends in a :class:`specs.stack.StackSpec`, the rest in positioned
problems. Total over canonical mappings: it never raises anything but SpecError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs import bounds, shares, templates
from specs.compile import addresses, booleans, limits, naming, pairs, schedules
from specs.compile.placing import strategy
from specs.compile.security import LEVELS
from specs.compile.service import ServiceCompiler
from specs.compile.values import given, mapping, number, texts, yes
from specs.compile.verdicts import Verdicts
from specs.compile.volumes_from import with_inherited
from specs.findings import Findings
from specs.problems import SpecError
from specs.stack import ContentSpec, NetworkSpec, StackSpec, VolumeSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from specs.problems import Position, Problem

Json = dict[str, Any]


def compile_stack(
    project: Json, origins: Mapping[str, Position], name: str, directory: str = ""
) -> tuple[StackSpec, list[Problem]]:
    """Return the stack and the warnings; raise SpecError with everything that is refused.

    ``project`` is the canonical mapping, ``origins`` says where its dotted paths were
    written, ``directory`` is the project's: a bind from below it is real only on the
    machine it was loaded on.
    """
    return _Compiler(project, origins, name, directory).run()


class _Compiler:
    def __init__(
        self, project: Json, origins: Mapping[str, Position], name: str, directory: str
    ) -> None:
        self.project = project
        self.directory = directory
        self.name = name
        self.findings = Findings(origins)
        self.verdicts = Verdicts(project, self.findings)

    def run(self) -> tuple[StackSpec, list[Problem]]:
        self.verdicts.apply_table()
        booleans.check(self.project, self.verdicts)
        naming.check(self.project, self.name, self.verdicts)
        limits.check(self.project, self.verdicts)
        pairs.check(self.project, self.verdicts)
        extension = mapping(self.project.get("x-corral"))
        level = self._level(extension)
        way = strategy("x-corral", extension, self.verdicts)
        services = ServiceCompiler(self.name, self.verdicts, self.directory, level, way)
        named = mapping(self.project.get("services"))
        spec = StackSpec(
            name=self.name,
            services={
                key: services.service(
                    key, with_inherited(named, key, self.verdicts), pairs.of_the_node(named, key)
                )
                for key in named
            },
            networks={
                key: self._network(key, mapping(value))
                for key, value in mapping(self.project.get("networks")).items()
            },
            volumes={
                key: self._volume(key, mapping(value))
                for key, value in mapping(self.project.get("volumes")).items()
            },
            secrets=self._contents("secrets"),
            configs=self._contents("configs"),
            **given(deadline=self.verdicts.duration(extension, "x-corral.deadline")),
        )
        self.verdicts.unknown_extensions(extension, "x-corral")
        self._bounds(spec)
        schedules.check_edges(spec, self.verdicts)
        self._cross_checks(spec)
        addresses.check(self.project, self.verdicts)
        if self.findings.errors:
            raise SpecError(self.findings.all())
        return spec, self.findings.all()

    # Top-level objects

    def _network(self, key: str, raw: Json) -> NetworkSpec:
        path = f"networks.{key}"
        driver = raw.get("driver")
        if driver not in (None, "", "bridge", "overlay", "default"):
            self.verdicts.refuse(
                f"{path}.driver",
                f"the network driver {driver} is not available",
                "bridge or overlay",
            )
        options = mapping(raw.get("driver_opts"))
        if "encrypted" in options or raw.get("encrypted"):
            self.verdicts.refuse(
                path,
                "encrypted networks are not available yet, and a plain one is not used instead",
                "remove `encrypted`, or run the hosts over a VPN",
                code="encrypted",
            )
        mtu = options.get("com.docker.network.driver.mtu") or options.get("mtu")
        subnets = [
            str(item["subnet"])
            for item in mapping(raw.get("ipam")).get("config") or ()
            if item.get("subnet") and ":" not in str(item["subnet"])
        ]
        return NetworkSpec(
            name=raw.get("name") or f"{self.name}_{key}",
            external=bool(raw.get("external")),
            internal=bool(raw.get("internal")),
            attachable=bool(raw.get("attachable")),
            subnets=tuple(subnets),
            mtu=self._mtu(f"{path}.driver_opts", mtu),
            labels=texts(raw.get("labels")),
        )

    def _mtu(self, path: str, value: Any) -> int | None:
        if value in (None, ""):
            return None
        mtu = number(value)
        if mtu is None or not 576 <= mtu <= 65535:
            self.verdicts.refuse(path, f"{value!r} is not an MTU", "write a number from 576 on")
        return mtu

    def _level(self, extension: Json) -> str:
        level = extension.get("security")
        if level in (None, ""):
            return "default"
        if level not in LEVELS:
            self.verdicts.refuse(
                "x-corral.security", f"{level!r} is not known here", f"use {', '.join(LEVELS)}"
            )
            return "default"
        return str(level)

    def _volume(self, key: str, raw: Json) -> VolumeSpec:
        path = f"volumes.{key}"
        if raw.get("driver") not in (None, "", "local"):
            self.verdicts.refuse(
                f"{path}.driver",
                f"the volume driver {raw['driver']} is not available",
                "leave it out (local): driver_opts: {type: nfs, o: 'addr=HOST,nfsvers=4', device: "
                "':/PATH'} mounts a server's share on every node, {type: none, o: bind, device: "
                "/PATH} what the node's owner mounted there",
            )
        options = {key: str(v) for key, v in mapping(raw.get("driver_opts")).items() if v}
        try:
            share = shares.read(options)
        except shares.VolumeFault as fault:
            self.verdicts.refuse(f"{path}.driver_opts", str(fault), fault.hint)
            share = None
        extension = mapping(raw.get("x-corral"))
        self.verdicts.unknown_extensions(extension, f"{path}.x-corral")
        name = str(raw.get("name") or f"{self.name}_{key}")
        words = templates.words(name)
        if words and raw.get("external"):
            self.verdicts.refuse(
                f"{path}.name",
                f"{name} is the name of several volumes, and an external one is there already",
                "write its very name, or leave external out",
            )
        for option, text in options.items():
            if templates.words(text):
                self.verdicts.refuse(
                    f"{path}.driver_opts.{option}",
                    "Swarm's words are not filled in here",
                    "mount the whole share, and a `subpath` or a path of the environment's",
                )
        return VolumeSpec(
            name=name,
            external=bool(raw.get("external")),
            per_slot=yes(extension.get("per_slot")) or templates.SLOT in words,
            labels=texts(raw.get("labels")),
            options=options,
            relative=share is not None
            and share.kind == "bind"
            and bool(self.directory)
            and f"{share.source}/".startswith(f"{self.directory.rstrip('/')}/"),
        )

    def _contents(self, kind: str) -> dict[str, ContentSpec]:
        return {
            key: ContentSpec(
                name=mapping(raw).get("name") or f"{self.name}_{key}",
                external=bool(mapping(raw).get("external")),
                labels=texts(mapping(raw).get("labels")),
            )
            for key, raw in mapping(self.project.get(kind)).items()
        }

    # Checks that need the whole

    def _bounds(self, spec: StackSpec) -> None:
        """Refuse more than the controller can look after and still answer."""
        published = bounds.ports(spec)
        if name := bounds.beyond(published, bounds.MOST_PORTS):
            self.verdicts.refuse(
                f"services.{name}.ports",
                bounds.excess(published, bounds.MOST_PORTS, "published ports"),
                "publish fewer, or give the service network_mode: host",
                code="too-many",
            )
        tasks = bounds.copies(spec, {})
        if name := bounds.beyond(tasks, bounds.MOST_TASKS):
            scale = "scale" in self.project["services"][name]
            self.verdicts.refuse(
                f"services.{name}.{'scale' if scale else 'deploy.replicas'}",
                bounds.excess(tasks, bounds.MOST_TASKS, "replicas"),
                "write a smaller number",
                code="too-many",
            )

    def _cross_checks(self, spec: StackSpec) -> None:
        published: dict[tuple[int, str, str], str] = {}
        for service in spec.services.values():
            path = f"services.{service.name}"
            for index, port in enumerate(service.task.ports):
                if port.published is None:
                    continue
                key = (port.published, port.protocol, port.host_ip or "")
                other = published.get(key)
                if other is not None and other != service.name and port.mode == "ingress":
                    self.verdicts.refuse(
                        f"{path}.ports[{index}]",
                        f"port {port.published}/{port.protocol} is also published by {other}",
                        "publish another port, or put a proxy in front of both",
                        code="port-clash",
                    )
                published.setdefault(key, service.name)
            volumes = {m.source for m in service.task.mounts if m.type == "volume" and m.source}
            if (level := service.task.security) != "default":
                for name in sorted(volumes & spec.volumes.keys()):
                    if shares.is_bind(spec.volumes[name].options):
                        self.verdicts.refuse(
                            f"volumes.{name}.driver_opts",
                            f"a path of the node is not allowed at x-corral.security: {level}",
                            f"{service.name} mounts it; use a volume without driver_opts",
                        )
            if service.per_node:
                for name in sorted(volumes & spec.volumes.keys()):
                    if templates.SLOT in templates.words(spec.volumes[name].name):
                        self.verdicts.refuse(
                            f"volumes.{name}.name",
                            f"{service.name} is global, and which of its tasks is on a node has "
                            "no number that stays",
                            "use {{.Node.Hostname}}",
                        )
