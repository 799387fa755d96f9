"""One service of the canonical mapping -> ServiceSpec; called by :mod:`specs.compile.stack`.

One method per group of keys, in one class because all of them report to the same verdicts;
what becomes a file in the container is :mod:`specs.compile.mounts`'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

from specs.compile import autoscales, jobs, machine, pairs, schedules, security
from specs.compile.exclusive import exclusive
from specs.compile.hooks import hooks
from specs.compile.mounts import MountCompiler
from specs.compile.placing import placed
from specs.compile.rollouts import depends_deadlines, strategy
from specs.compile.values import (
    cores,
    exposed,
    extra_hosts,
    given,
    links,
    listed,
    mapping,
    number,
    size_bytes,
    text,
    texts,
    ulimits,
    words,
)
from specs.names import without_root
from specs.references import built_name, reference_fault, tag_fault
from specs.stack import (
    BuildSpec,
    Dependency,
    Device,
    Healthcheck,
    Limits,
    LogConfig,
    NetworkAttachment,
    Port,
    Reservations,
    Resources,
    RestartPolicy,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from specs.base import Model
    from specs.compile.verdicts import Verdicts

Json = dict[str, Any]
_LAST_PORT = 65535
_Condition = Literal["none", "on-failure", "any"]
_CONDITIONS: dict[str, _Condition] = {
    "no": "none",
    "none": "none",
    "on-failure": "on-failure",
    "always": "any",
    "any": "any",
    "unless-stopped": "any",
}


class SecurityOptions(NamedTuple):
    """What ``security_opt`` asks for, by the fields of TaskSpec."""

    no_new_privileges: bool = False
    seccomp: Literal["default", "unconfined"] = "default"
    apparmor: Literal["default", "unconfined"] = "default"


class ServiceCompiler:
    """Compiles the services of one stack."""

    def __init__(
        self, stack: str, verdicts: Verdicts, directory: str, level: str, strategy: str
    ) -> None:
        self.stack = stack
        self.level = level  # of security, where a service names none
        self.strategy = strategy  # of placing, likewise
        self.verdicts = verdicts
        self.mounts = MountCompiler(verdicts, directory)

    def service(self, name: str, raw: Json, lent: Json) -> ServiceSpec:
        """Return the service; ``lent``: what of its keys a partner has of the node."""
        path = f"services.{name}"
        deploy = mapping(raw.get("deploy"))
        extension = mapping(raw.get("x-corral"))
        self.verdicts.unknown_extensions(extension, f"{path}.x-corral")
        mode = self._one_of(f"{path}.deploy.mode", deploy, ServiceSpec)
        if jobs.is_job(mode):
            jobs.check(path, raw, self.verdicts)
        replicas = raw.get("scale")
        if replicas is None:
            replicas = deploy.get("replicas")
        schedule = schedules.schedule(path, raw, self.verdicts)
        image = raw.get("image") or ""
        build = self._build(path, raw.get("build"))
        if not image and build is not None:
            image = built_name(self.stack, name)
        elif build is not None and not reference_fault(image) and (why := tag_fault(image)):
            self.verdicts.refuse(f"{path}.image", why, "write the name without its digest")
        deadlines = depends_deadlines(path, raw, self.verdicts)
        ways = strategy(path, raw, self.verdicts)
        task = self._task(path, raw, deploy, image, lent)
        return ServiceSpec(
            name=name,
            task=task,
            build=build,
            container_name=raw.get("container_name") or None,
            depends_on={
                other: Dependency(
                    **given(
                        condition=edge.get("condition"),
                        restart=edge.get("restart"),
                        required=edge.get("required"),
                        deadline=deadlines.get(other),
                    )
                )
                for other, edge in mapping(raw.get("depends_on")).items()
            },
            placement=placed(path, raw, self.strategy, self.verdicts),
            update=jobs.UPDATE
            if jobs.is_job(mode)
            else self._update(
                mapping(deploy.get("update_config")),
                f"{path}.deploy.update_config",
                ways,
            ),
            rollback=self._update(
                mapping(deploy.get("rollback_config")), f"{path}.deploy.rollback_config"
            ),
            attach=raw.get("attach") is not False,
            labels=texts(deploy.get("labels")),
            **given(
                pull_policy=raw.get("pull_policy") or None,
                mode=mode,
                replicas=schedules.replicas(schedule, replicas),
                schedule=schedule,
                autoscale=autoscales.autoscale(path, raw, task.resources, self.verdicts),
                max_concurrent=jobs.max_concurrent(path, mode, extension, self.verdicts),
                endpoint_mode=self._one_of(f"{path}.deploy.endpoint_mode", deploy, ServiceSpec),
            ),
        )

    def _one_of(self, path: str, raw: Json, model: type[Model]) -> str | None:
        """Return the word at the last key of ``path``; None where there is none or a wrong one.

        What is known are the words of the model's field of that name.
        """
        key = path.rpartition(".")[2]
        if raw.get(key) == "":
            return None
        return self.verdicts.word(raw, path, get_args(model.model_fields[key].annotation))

    def _task(self, path: str, raw: Json, deploy: Json, image: str, lent: Json) -> TaskSpec:
        extension = mapping(raw.get("x-corral"))
        network_mode = self._network_mode(path, raw)
        options = self._security(path, raw.get("security_opt") or [])
        ours = f"{path}.x-corral"
        fields: Json = dict(
            image=image,
            entrypoint=words(raw.get("entrypoint")),
            command=words(raw.get("command")),
            environment={
                key: str(value)
                for key, value in mapping(raw.get("environment")).items()
                if value is not None
            },
            user=text(raw.get("user")),
            group_add=tuple(str(group) for group in raw.get("group_add") or ()),
            working_dir=raw.get("working_dir"),
            hostname=without_root(str(raw["hostname"])) if raw.get("hostname") else None,
            domainname=raw.get("domainname"),
            labels=texts(raw.get("labels")),
            annotations=texts(raw.get("annotations")),
            mounts=self.mounts.mounts(path, raw),
            secrets=self.mounts.files(path, raw, "secrets", "/run/secrets"),
            configs=self.mounts.files(path, raw, "configs", "/"),
            networks=self._attachments(raw) if network_mode == "overlay" else (),
            network_mode=cast("Any", network_mode),
            partner=pairs.partner_of(raw),
            ports=self._ports(path, raw.get("ports") or []),
            expose=self._expose(path, raw.get("expose") or []),
            healthcheck=self._healthcheck(path, raw.get("healthcheck")),
            restart=jobs.restart(raw, self._restart(path, raw, deploy)),
            resources=self._resources(raw, deploy),
            stop_signal=raw.get("stop_signal"),
            init=bool(raw.get("init")),
            exclusive=exclusive(path, raw, self.verdicts),
            tty=bool(raw.get("tty")),
            stdin_open=bool(raw.get("stdin_open")),
            read_only=bool(raw.get("read_only")),
            privileged=bool(raw.get("privileged")),
            cap_add=tuple(raw.get("cap_add") or ()),
            cap_drop=tuple(raw.get("cap_drop") or ()),
            no_new_privileges=options.no_new_privileges,
            seccomp=options.seccomp,
            apparmor=options.apparmor,
            devices=self._devices(path, raw.get("devices") or ()),
            ulimits=ulimits(raw.get("ulimits")),
            sysctls=texts(raw.get("sysctls")),
            oom_score_adj=raw.get("oom_score_adj"),
            extra_hosts=extra_hosts(raw.get("extra_hosts")),
            links=links(raw),
            dns=tuple(listed(raw.get("dns"))),
            dns_search=tuple(listed(raw.get("dns_search"))),
            dns_opt=tuple(listed(raw.get("dns_opt"))),
            logging=self._logging(path, mapping(raw.get("logging"))),
            post_start=hooks(path, raw, "post_start", self.verdicts),
            pre_stop=hooks(path, raw, "pre_stop", self.verdicts),
            **given(
                stop_grace=self.verdicts.duration(raw, f"{path}.stop_grace_period"),
                shm_size=size_bytes(raw.get("shm_size")),
                on_unhealthy=self._one_of(f"{ours}.on_unhealthy", extension, TaskSpec),
                on_reboot=self._one_of(f"{ours}.on_reboot", extension, TaskSpec),
            ),
            **machine.shared(path, raw, deploy, self.verdicts),
        )
        level = self._level(ours, extension)
        security.check(path, {**raw, **lent}, level, self.verdicts)
        return TaskSpec(**security.applied(fields, level, raw))

    def _level(self, ours: str, extension: Json) -> str:
        own = self._one_of(f"{ours}.security", extension, TaskSpec)
        return own or self.level

    def _network_mode(self, path: str, raw: Json) -> str:
        mode = str(raw.get("network_mode") or "")
        if mode in ("", "bridge", "default"):
            return "overlay"
        if mode in ("none", "host"):
            return mode
        if pairs.shares(raw, "network_mode"):
            return "partner"
        if mode.startswith("container:"):
            return "none"  # refused by pairs.check
        self.verdicts.refuse(
            f"{path}.network_mode",
            f"network_mode {mode} is not available",
            "join the same network and talk by service name",
        )
        return "none"

    def _security(self, path: str, options: list[str]) -> SecurityOptions:
        """Read the options; here alone, the node gets what they mean."""
        found = SecurityOptions()
        for index, option in enumerate(options):
            name, _, value = option.replace(":", "=", 1).partition("=")
            match name, value:
                case "no-new-privileges", "" | "true" | "false":
                    found = found._replace(no_new_privileges=value != "false")
                case "seccomp", "unconfined":
                    found = found._replace(seccomp="unconfined")
                case "apparmor", "unconfined":
                    found = found._replace(apparmor="unconfined")
                case "apparmor" | "label" | "systempaths", _:
                    self.verdicts.warn(
                        f"{path}.security_opt[{index}]", f"`{option}` is not honoured yet"
                    )
                case _:
                    self.verdicts.refuse(
                        f"{path}.security_opt[{index}]",
                        f"{option!r} is not available",
                        "known: no-new-privileges, seccomp=unconfined, apparmor=unconfined",
                    )
        return found

    def _devices(self, path: str, devices: Iterable[Json]) -> tuple[Device, ...]:
        found = []
        for index, device in enumerate(devices):
            source = str(device.get("source") or "")
            if not source.startswith("/"):
                self.verdicts.refuse(
                    f"{path}.devices[{index}]",
                    f"{source!r} is not a device file: vendors' devices (CDI) are not available",
                    "name a file under /dev",
                )
                continue
            found.append(
                Device(
                    source=source,
                    target=device.get("target") or source,
                    **given(permissions=device.get("permissions") or None),
                )
            )
        return tuple(found)

    def _attachments(self, raw: Json) -> tuple[NetworkAttachment, ...]:
        attachments = []
        for key, value in mapping(raw.get("networks")).items():
            options = mapping(value)
            attachments.append(
                NetworkAttachment(
                    network=key,
                    aliases=tuple(options.get("aliases") or ()),
                    ipv4_address=options.get("ipv4_address"),
                    gw_priority=int(options.get("gw_priority") or 0),
                    priority=int(options.get("priority") or 0),
                )
            )
        return tuple(sorted(attachments, key=lambda item: (-item.priority, item.network)))

    def _expose(self, path: str, entries: list[Any]) -> tuple[Port, ...]:
        ports: list[Port] = []
        for index, entry in enumerate(entries):
            found = exposed(entry)
            if not found:
                self.verdicts.warn(
                    f"{path}.expose[{index}]", f"{entry!r} names no port", 'write "80" or "80/udp"'
                )
            ports.extend(found)
        return tuple(ports)

    def _ports(self, path: str, ports: list[Json]) -> tuple[Port, ...]:
        result = []
        for index, port in enumerate(ports):
            published = port.get("published")
            number: int | None = None
            if published not in (None, "", 0, "0"):
                if not str(published).isdigit():
                    self.verdicts.refuse(
                        f"{path}.ports[{index}]",
                        f"a range of published ports ({published}) for one container port",
                        "publish one port; every node answers on it for all replicas",
                    )
                    continue
                number = int(published)
            # Long forms keep what was written; for Docker a protocol is one in any case.
            cased = {"protocol": str(port.get("protocol") or "").lower()}
            protocol = self._one_of(f"{path}.ports[{index}].protocol", cased, Port)
            target = int(port.get("target") or 0)
            if not 0 < target <= _LAST_PORT or (number or 0) > _LAST_PORT:
                self.verdicts.refuse(
                    f"{path}.ports[{index}]", "there is no such port", "use 1 to 65535"
                )
                continue
            result.append(
                Port(
                    target=target,
                    published=number,
                    host_ip=port.get("host_ip") or None,
                    **given(protocol=protocol, mode="host" if port.get("mode") == "host" else None),
                )
            )
        return tuple(result)

    def _healthcheck(self, path: str, raw: Any) -> Healthcheck | None:
        if not raw:
            return None
        if raw.get("disable"):
            return Healthcheck(test=("NONE",))
        test = raw.get("test") or ()
        if isinstance(test, str):
            test = ("CMD-SHELL", test)

        def seconds(key: str) -> float | None:
            # Docker reads an explicit 0 as "the default", and so do users' files.
            return self.verdicts.duration(raw, f"{path}.healthcheck.{key}") or None

        return Healthcheck(
            test=tuple(test),
            **given(
                interval=seconds("interval"),
                timeout=seconds("timeout"),
                retries=int(raw.get("retries") or 0) or None,
                start_period=seconds("start_period"),
                start_interval=seconds("start_interval"),
            ),
        )

    def _restart(self, path: str, raw: Json, deploy: Json) -> RestartPolicy:
        policy = deploy.get("restart_policy")
        if policy is not None:
            policy = mapping(policy)
            base = f"{path}.deploy.restart_policy"
            return RestartPolicy(
                max_attempts=policy.get("max_attempts"),
                **given(
                    condition=self._condition(f"{base}.condition", policy.get("condition")),
                    delay=self.verdicts.duration(policy, f"{base}.delay"),
                    window=self.verdicts.duration(policy, f"{base}.window"),
                ),
            )
        word, _, count = str(raw.get("restart") or "").partition(":")
        # As Compose: without `restart` a container that ends stays ended. A lost
        # node's tasks are replaced all the same; that is not a restart.
        condition = self._condition(f"{path}.restart", word) or "none"
        counted = condition == "on-failure" and count.isdigit()
        return RestartPolicy(condition=condition, max_attempts=int(count) if counted else None)

    def _condition(self, path: str, word: Any) -> _Condition | None:
        """Return when to restart; the words of `restart` and of Swarm's policy are one language.

        Compose takes each in the place of the other.
        """
        if word in (None, ""):
            return None
        known = _CONDITIONS.get(str(word))
        if known is None:
            told = "no, always, on-failure or unless-stopped (any and none mean always and no)"
            self.verdicts.refuse(path, f"{word!r} is not a restart policy", told)
        return known

    def _resources(self, raw: Json, deploy: Json) -> Resources:
        resources = mapping(deploy.get("resources"))
        limits = mapping(resources.get("limits"))
        reserved = mapping(resources.get("reservations"))
        cpus = cores(limits.get("cpus")) or cores(raw.get("cpus"))
        quota, period = raw.get("cpu_quota"), raw.get("cpu_period")
        if cpus is None and quota and float(quota) > 0:
            cpus = float(quota) / float(period or 100_000)
        pids = limits.get("pids") or raw.get("pids_limit")
        return Resources(
            limits=Limits(
                cpus=cpus,
                memory=size_bytes(limits.get("memory")) or size_bytes(raw.get("mem_limit")),
                pids=int(pids) if pids and int(pids) > 0 else None,
            ),
            reservations=Reservations(
                **given(
                    cpus=cores(reserved.get("cpus")),
                    memory=size_bytes(reserved.get("memory"))
                    or size_bytes(raw.get("mem_reservation")),
                )
            ),
        )

    def _logging(self, path: str, raw: Json) -> LogConfig:
        driver = raw.get("driver") or None
        if driver not in (None, "local", "json-file", "none"):
            self.verdicts.refuse(
                f"{path}.logging.driver",
                f"the log driver {driver} is not available",
                "local, json-file or none",
            )
            driver = None
        options = mapping(raw.get("options"))
        for key in options:
            if key not in ("max-size", "max-file"):
                self.verdicts.warn(f"{path}.logging.options.{key}", f"`{key}` is not honoured yet")
        return LogConfig(
            **given(
                driver=driver,
                max_size=size_bytes(options.get("max-size")),
                max_files=number(options.get("max-file")) or None,
            )
        )

    def _build(self, path: str, raw: Any) -> BuildSpec | None:
        if not raw:
            return None
        context = str(raw.get("context") or ".")
        if "://" in context or context.startswith("git@"):
            self.verdicts.refuse(
                f"{path}.build.context", "a remote build context is not available", "clone it first"
            )
        return BuildSpec(
            context=context,
            dockerfile_inline=raw.get("dockerfile_inline"),
            args={k: str(v) for k, v in mapping(raw.get("args")).items() if v is not None},
            target=raw.get("target"),
            labels=texts(raw.get("labels")),
            tags=tuple(raw.get("tags") or ()),
            no_cache=bool(raw.get("no_cache")),
            pull=bool(raw.get("pull")),
            network=raw.get("network"),
            extra_hosts=extra_hosts(raw.get("extra_hosts")),
            **given(dockerfile=raw.get("dockerfile") or None),
        )

    def _update(self, raw: Json, path: str, more: Json | None = None) -> UpdateConfig:
        parallelism = raw.get("parallelism")
        return UpdateConfig(
            **given(
                parallelism=None if parallelism is None else int(parallelism),
                delay=self.verdicts.duration(raw, f"{path}.delay"),
                order=raw.get("order") or None,
                failure_action=self._one_of(f"{path}.failure_action", raw, UpdateConfig),
                monitor=self.verdicts.duration(raw, f"{path}.monitor"),
                max_failure_ratio=float(raw.get("max_failure_ratio") or 0.0) or None,
            ),
            **(more or {}),
        )
