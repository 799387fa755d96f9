"""Check that the parts of a canonical model fit together.

Looks only at active services, before any are selected by name: a broken service
nobody asked for is still broken. What the findings already call damaged is not
reported again as a consequence. Pure but for one thing: ``scale`` is copied into
``deploy.replicas`` where both forms are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.compose.merging.validate import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from specs.findings import Findings
    from specs.problems import Position

_ORIGINS = ("image", "build", "provider", "extends")
_PAIRS = (
    ("cpus", "limits", "cpus"),
    ("mem_limit", "limits", "memory"),
    ("mem_reservation", "reservations", "memory"),
    ("pids_limit", "limits", "pids"),
)


class Consistency:
    """One check of one model; ``where`` tells the position of a path."""

    def __init__(
        self,
        model: dict[str, Any],
        disabled: dict[str, Any],
        findings: Findings,
        where: Callable[[str], Position | None],
        *,
        interpolated: bool = True,
    ) -> None:
        self._interpolated = interpolated
        self._model = model
        self._services: dict[str, Any] = model["services"]
        self._disabled = disabled
        self._findings = findings
        self._where = where

    def check(self) -> None:
        """Report every inconsistency."""
        for name, service in self._services.items():
            path = f"services.{name}"
            self._source(service, path)
            self._networks(service, path)
            self._health(service, path)
            self._dependencies(name, service, path)
            self._resources(service, path)
            self._scale(service, path)
            self._limits(service, path)
            self._watch(service, path)
            self._mounts(service, path)
        self._container_names()
        self._secrets()
        self._cycles()

    def _error(self, message: str, path: str, hint: str = "", code: str = "inconsistent") -> None:
        if not self._interpolated and "$" in message + path:
            return  # what still has a variable in it cannot be judged
        if path not in self._findings.damaged:
            self._findings.error(
                message, code=code, path=path, position=self._where(path), hint=hint
            )

    def _whole(self, path: str) -> bool:
        return path not in self._findings.damaged

    def _source(self, service: dict[str, Any], path: str) -> None:
        build = service.get("build")
        if build is None and not service.get("image") and "provider" not in service:
            self._no_image(path)
        if not isinstance(build, dict):
            return
        if build.get("dockerfile") and build.get("dockerfile_inline"):
            self._error(
                "dockerfile and dockerfile_inline exclude each other",
                f"{path}.build.dockerfile_inline",
                "keep one of them",
            )
        for key, context in build.get("additional_contexts", {}).items():
            if context.startswith("service:"):
                self._buildable(
                    context.removeprefix("service:"), f"{path}.build.additional_contexts.{key}"
                )
        platforms, platform = build.get("platforms"), service.get("platform")
        if platforms and platform and platform not in platforms:
            self._error(
                f"build.platforms must contain the service's platform {platform}",
                f"{path}.build.platforms",
                f"add {platform}",
            )
        for index, secret in enumerate(build.get("secrets", ())):
            self._defined("secrets", secret.get("source", ""), f"{path}.build.secrets[{index}]")

    def _no_image(self, path: str) -> None:
        if f"{path}.extends" in self._findings.damaged:
            return
        inside = f"{path}."
        for damaged in self._findings.damaged:
            key = damaged.removeprefix(inside).partition(".")[0]
            if damaged.startswith(inside) and did_you_mean(key, _ORIGINS):
                return  # there is one, but something is wrong with it
        self._findings.error(
            "the service has neither an image nor a build",
            code="no-image",
            path=path,
            position=self._where(path),
            hint="add image: NAME or build: PATH",
        )

    def _buildable(self, name: str, path: str) -> None:
        target = self._services.get(name)
        if target is None:
            self._error(
                f"the service {name!r} is not defined",
                path,
                self._suggest("services", name) or f"add {name} under services:",
            )
        elif "build" not in target:
            self._error(f"the service {name!r} has no build", path, f"add build: to {name}")

    def _networks(self, service: dict[str, Any], path: str) -> None:
        networks = service.get("networks") or {}
        mode = service.get("network_mode", "")
        if mode and networks:
            self._error(
                "network_mode and networks exclude each other",
                f"{path}.network_mode",
                "keep one of them",
            )
        for name in networks:
            self._defined("networks", name, f"{path}.networks.{name}")
        if mode.startswith("service:"):
            target = mode.removeprefix("service:")
            if target not in self._services:
                state = "active" if target in self._disabled else "defined"
                self._error(
                    f"the service {target!r} is not {state}",
                    f"{path}.network_mode",
                    self._suggest("services", target) or f"add {target} under services:",
                    "undefined",
                )

    def _health(self, service: dict[str, Any], path: str) -> None:
        test = (service.get("healthcheck") or {}).get("test")
        if test and test[0] not in ("CMD", "CMD-SHELL", "NONE"):
            self._error(
                f"a healthcheck list must begin with CMD, CMD-SHELL or NONE, not {test[0]!r}",
                f"{path}.healthcheck.test",
                "write the command as one string, or begin the list with CMD",
            )

    def _dependencies(self, name: str, service: dict[str, Any], path: str) -> None:
        for target, how in service.get("depends_on", {}).items():
            if target in self._services:
                continue
            if target in self._disabled:
                if how.get("required") is False:
                    continue
                profiles = ", ".join(self._disabled[target].get("profiles", ()))
                self._error(
                    f"{name} depends on {target}, whose profile is not active",
                    f"{path}.depends_on.{target}",
                    f"activate a profile of {target} ({profiles}), or set required: false",
                    "undefined",
                )
            elif self._whole(f"services.{target}"):
                self._error(
                    f"{name} depends on {target}, which is not defined",
                    f"{path}.depends_on.{target}",
                    self._suggest("services", target) or f"add {target} under services:",
                    "undefined",
                )

    def _resources(self, service: dict[str, Any], path: str) -> None:
        for index, mount in enumerate(service.get("volumes", ())):
            if isinstance(mount, dict) and mount.get("type") == "volume" and mount.get("source"):
                self._defined("volumes", mount["source"], f"{path}.volumes[{index}]")
        for section in ("configs", "secrets"):
            for index, item in enumerate(service.get(section, ())):
                self._defined(section, item.get("source", ""), f"{path}.{section}[{index}]")
        for name in service.get("models") or {}:
            self._defined("models", name, f"{path}.models.{name}")

    def _defined(self, section: str, name: str, path: str) -> None:
        if name in self._model.get(section, {}) or f"{section}.{name}" in self._findings.damaged:
            return
        if section in self._findings.damaged and section not in self._model:
            return
        what = section.removesuffix("s")
        self._error(
            f"the {what} {name!r} is not defined",
            path,
            self._suggest(section, name) or f"add it under {section}: at the top level",
            "undefined",
        )

    def _suggest(self, section: str, name: str) -> str:
        return did_you_mean(name, tuple(self._model.get(section, {})), cutoff=0.6)

    def _scale(self, service: dict[str, Any], path: str) -> None:
        deploy = service.get("deploy")
        scale = _number(service.get("scale"))
        replicas = _number(deploy.get("replicas")) if deploy is not None else None
        if scale is not None and deploy is not None:
            if replicas is not None and replicas != scale:
                self._error(
                    f"scale ({scale}) and deploy.replicas ({replicas}) differ",
                    f"{path}.scale",
                    "keep one of them",
                )
            deploy["replicas"] = replicas = scale
        for value, key in ((scale, "scale"), (replicas, "deploy.replicas")):
            if value is not None and value < 0:
                self._error(
                    f"cannot be negative: {value}", f"{path}.{key}", "write a number from 0 on"
                )
        count = scale if scale is not None else replicas if replicas is not None else 1
        if count > 1 and service.get("container_name"):
            key = "scale" if scale is not None else "deploy.replicas"
            self._error(
                f"container_name allows one replica, {key} asks for {count}",
                f"{path}.container_name",
                "remove container_name",
            )

    def _limits(self, service: dict[str, Any], path: str) -> None:
        resources = (service.get("deploy") or {}).get("resources", {})
        for key, group, field in _PAIRS:
            value = _number(service.get(key, 0))
            if value and group in resources and resources[group].get(field, 0) != value:
                self._error(
                    f"{key} and deploy.resources.{group}.{field} differ",
                    f"{path}.{key}",
                    f"keep deploy.resources.{group}.{field} only",
                )

    def _watch(self, service: dict[str, Any], path: str) -> None:
        for index, watch in enumerate((service.get("develop") or {}).get("watch", ())):
            if not watch.get("target") and watch.get("action") not in ("rebuild", "restart"):
                self._error(
                    f"the action {watch.get('action')} needs a target",
                    f"{path}.develop.watch[{index}]",
                    "add target: PATH in the container",
                )

    def _mounts(self, service: dict[str, Any], path: str) -> None:
        taken: dict[str, str] = {}
        targets = [
            (f"{path}.tmpfs[{index}]", item.partition(":")[0])
            for index, item in enumerate(service.get("tmpfs", ()))
        ]
        targets += [
            (f"{path}.volumes[{index}]", item.get("target", ""))
            for index, item in enumerate(service.get("volumes", ()))
            if isinstance(item, dict)
        ]
        for at, target in targets:
            first = taken.setdefault(target, at)
            if first != at:
                self._error(
                    f"something is already mounted at {target} by {first}", at, "remove one of them"
                )

    def _container_names(self) -> None:
        taken: dict[str, str] = {}
        for name, service in self._services.items():
            wanted = service.get("container_name")
            if wanted:
                first = taken.setdefault(wanted, name)
                if first != name:
                    self._error(
                        f"the container name {wanted} is already used by {first}",
                        f"services.{name}.container_name",
                        "choose another, or leave it out",
                    )

    def _secrets(self) -> None:
        for name, secret in self._model.get("secrets", {}).items():
            if not any(secret.get(key) for key in ("external", "file", "environment", "driver")):
                self._error(
                    "the secret has no source: one of file, environment must be set",
                    f"secrets.{name}",
                    "add file: PATH, or external: true",
                )

    def _cycles(self) -> None:
        from graphlib import CycleError, TopologicalSorter  # noqa: PLC0415 - cheap but not free

        graph = {
            name: [
                target
                for target in sorted(service.get("depends_on", {}))
                if target in self._services
            ]
            for name, service in sorted(self._services.items())
        }
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            found: list[str] = error.args[1][::-1]  # the sorter lists dependencies first
            start = found.index(min(found))
            cycle = [*found[start:-1], *found[: start + 1]] if start else found
            self._error(
                f"dependency cycle: {' -> '.join(cycle)}",
                f"services.{cycle[0]}.depends_on.{cycle[1]}",
                "remove one of these depends_on",
                "cycle",
            )


def _number(value: Any) -> Any:
    """Return the value unless it is text that is not interpolated yet."""
    return None if isinstance(value, str) else value
