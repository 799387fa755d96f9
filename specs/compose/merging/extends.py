"""``extends``: merge each service over the one it extends, in this file or another.

Runs per file, after includes and before the file is merged over earlier ones. The
other file is interpolated with the same variables, brings only its services, and
its relative paths are resolved against its own folder.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from specs.compose.merging.merge import Merge
from specs.compose.merging.scope import cut, relative
from specs.compose.reading.tree import Map, copy, mark_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from specs.compose.merging.scope import Cuts, Scope
    from specs.compose.reading.tree import SourceMark
    from specs.findings import Findings

    # (absolute path, its folder as seen from here, where it is named) -> services and their cuts
    ReadOther = Callable[[str, str, str, SourceMark | None], tuple[Map, Cuts] | None]

_Chain = tuple[tuple[str, str], ...]
_LONGEST = 100  # services in a chain


class Extends:
    """The ``extends`` of one document."""

    def __init__(
        self, findings: Findings, scope: Scope, file: str, cuts: Cuts, read: ReadOther
    ) -> None:
        self._findings = findings
        self._scope = scope
        self._file = file
        self._cuts = cuts
        self._read = read
        # How long the chain below a merged service is: merging it again must not hide that.
        self._length: dict[tuple[int, str], int] = {}
        self._too_long = False

    def apply(self, tree: Map) -> None:
        """Resolve every service of the document in place."""
        services = tree.get("services")
        if not isinstance(services, Map):
            return
        for name in list(services):
            services[name] = self._service(name, services, self._cuts, ())

    def _service(self, name: str, services: Map, cuts: Cuts, chain: _Chain) -> Any:
        service = services.get(name)
        reference = self._reference(service)
        if reference is None or not isinstance(service, Map):
            return service
        path = f"services.{name}.extends"
        mark = mark_of(service, "extends")
        base_name, file = reference
        loaded: tuple[Map, Cuts] | None = (services, cuts)
        if self._too_long:
            loaded = None  # told once; every further service would only repeat it
        elif file is not None:
            loaded = self._other_file(base_name, file, path, mark)
        elif base_name not in services:
            self._missing(base_name, services, path, mark, self._file)
            loaded = None
        if loaded is None:
            self._findings.damage(path)
            return _without(service)
        base_services, base_cuts = loaded
        link = (file or self._file, name)
        if link in chain:
            self._circular((*chain, link), path, mark)
            return _without(service)
        base, below = None, _LONGEST
        if len(chain) < _LONGEST:
            base = self._service(base_name, base_services, base_cuts, (*chain, link))
            below = self._length.get((id(base_services), base_name), 0)
        if below >= _LONGEST:
            self._refuse_length((*chain, link), base_name, path, mark)
            self._findings.damage(path)
            return _without(service)
        if f"services.{base_name}.extends" in self._findings.damaged:
            self._findings.damage(path)  # what the base lacks is told where the base is
        self._length[id(services), name] = below + 1
        if isinstance(base, Map):
            return self._merged(name, copy(base), services, cuts)
        return service if base is None else _without(service)

    def _merged(self, name: str, base: Map, services: Map, cuts: Cuts) -> Map:
        """Return the service merged over its base, which then stands in its place."""
        cut(Map({"services": Map({name: base})}), cuts)
        merged = Merge(self._findings, "extends").services(base, services[name], f"services.{name}")
        merged.pop("extends", None)
        services[name] = merged
        return merged

    @staticmethod
    def _reference(service: Any) -> tuple[str, str | None] | None:
        """Return service and file; None too when the schema will tell what is wrong."""
        extends = service.get("extends") if isinstance(service, Map) else None
        if isinstance(extends, str):
            return extends, None
        if isinstance(extends, Map):
            service, file = extends.get("service"), extends.get("file")
            if isinstance(service, str) and (file is None or isinstance(file, str)):
                return service, file
        return None

    def _other_file(
        self, base_name: str, file: str, path: str, mark: Any
    ) -> tuple[Map, Cuts] | None:
        absolute = self._scope.local(file)
        folder = relative(posixpath.dirname(absolute), self._scope.folder)
        loaded = self._read(absolute, folder, path, mark)
        if loaded is None:
            return None
        tree, cuts = loaded
        services = tree.get("services")
        if not isinstance(services, Map):
            self._findings.error(
                f"{absolute} has no services",
                code="extends",
                path=path,
                mark=mark,
                hint="name another file",
            )
            return None
        if base_name not in services:
            self._missing(base_name, services, path, mark, absolute)
            return None
        return services, cuts

    def _missing(self, wanted: str, services: Map, path: str, mark: Any, file: str) -> None:
        from specs.compose.merging.validate import did_you_mean  # noqa: PLC0415 - on the way to a refusal

        self._findings.error(
            f"the service {wanted!r} to extend does not exist in {file}",
            code="extends",
            path=path,
            mark=mark,
            hint=did_you_mean(wanted, tuple(services))
            or f"the file has: {', '.join(sorted(services)) or 'no services'}",
        )

    def _circular(self, chain: _Chain, path: str, mark: Any) -> None:
        steps = " extends ".join(f"{service} in {file}" for file, service in chain)
        self._findings.error(
            f"circular reference: {steps}",
            code="cycle",
            path=path,
            mark=mark,
            hint="remove one of these extends",
        )

    def _refuse_length(self, chain: _Chain, base: str, path: str, mark: SourceMark | None) -> None:
        if not self._too_long:
            self._findings.error(
                f"{chain[-1][1]} extends {base}, in a chain of more than {_LONGEST} services that"
                " extend each other",
                code="too-long",
                path=path,
                mark=mark,
                hint="let the services extend one base, or use fewer steps",
            )
        self._too_long = True


def _without(service: Map) -> Map:
    made: Map = copy(service)
    made.pop("extends", None)
    return made
