"""What `corral config` answers besides the whole model: lists, variables, hashes, the schema.

Called by orchestrator.cli.commands.config with a loaded project; returns text. Only
:func:`with_digests` asks the controller, and only because the user said so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.cli.errors import CliError
from orchestrator.cli.show.table import render as table
from specs.kit import jsontext

if TYPE_CHECKING:
    from orchestrator.client.client import Client
    from specs import Project


def listed(model: dict[str, Any], what: str) -> list[str]:
    """Return the names `--services`, `--images` ... print."""
    services = model.get("services") or {}
    if what == "images":
        return sorted({image_of(model, key, spec) for key, spec in services.items()})
    if what == "profiles":
        return sorted({name for spec in services.values() for name in spec.get("profiles") or ()})
    return sorted(model.get(what) or {})


def image_of(model: dict[str, Any], key: str, spec: dict[str, Any]) -> str:
    """Return the image of a service: a built one without a name has Compose's."""
    return str(spec.get("image") or f"{model.get('name')}-{key}")


def schema(form: str) -> str:
    """Return the JSON schema of the files."""
    from specs.compile.json_schema import json_schema

    if form == "yaml":
        from specs.compose.project.render import as_yaml

        return as_yaml(json_schema())
    return jsontext.shown(json_schema(), indent=2) + "\n"


def environment(project: Project) -> str:
    """Return the variables interpolation may use, one a line."""
    return "".join(f"{name}={project.environment[name]}\n" for name in sorted(project.environment))


def variables(project: Project, form: str | None) -> str:
    """Return the variables the files ask for; ``project`` is loaded without interpolation."""
    from specs.compose.reading.template_variables import asked_variables

    asked = asked_variables([project.model, list(project.disabled.values())])
    if form == "json":
        rows = {item.name: item._asdict() for item in asked}
        return jsontext.shown(rows, indent=2) + "\n"
    shown = table(
        ["NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"],
        [[item.name, str(item.required).lower(), item.default, item.alternate] for item in asked],
    )
    return f"{shown}\n"


def hashes(project: Project, wanted: str) -> str:
    """Return `SERVICE HASH` lines. Raises CliError for a service that is not there."""
    from specs.compose.project.fingerprint import service_hashes
    from specs.problems import SpecError

    try:
        found = service_hashes(project)
    except SpecError as exc:
        from orchestrator.cli import findings

        findings.show(exc.problems)
        raise CliError("a config cannot be read, so there is no hash of its content") from None
    names = list(found) if wanted == "*" else [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in found:
            raise CliError(f"no such service: {name}", hint=f"the file has: {', '.join(found)}")
    return "".join(f"{name} {found[name]}\n" for name in names)


def with_digests(model: dict[str, Any], client: Client) -> dict[str, Any]:
    """Return the model with images named by the digests the running tasks were pinned to."""
    pinned = _pinned(str(model.get("name")), client)
    services: dict[str, Any] = {}
    for name, spec in model["services"].items():
        image = image_of(model, name, spec)
        if "@" in image or not spec.get("image") or spec.get("build"):
            # What is built here has no registry's digest, whatever its name.
            services[name] = spec
        elif image in pinned:
            services[name] = {**spec, "image": f"{image}@{pinned[image]}"}
        else:
            raise CliError(
                f"the digest of {image} (service {name}) is not known: no task here runs it",
                hint="corral up pins it; or write image: NAME@sha256:...",
            )
    return {**model, "services": services}


def images_only(model: dict[str, Any]) -> dict[str, Any]:
    """Return an override file's model: the images and nothing else, but of what is built.

    The file builds that, also with this override; an image of a digest cannot be built.
    """
    services: dict[str, Any] = model["services"]
    return {
        "services": {
            name: {"image": spec["image"]}
            for name, spec in services.items()
            if spec.get("image") and not spec.get("build")
        }
    }


def _pinned(stack: str, client: Client) -> dict[str, str]:
    """Return image -> digest of the stack's tasks, newest release last. Raises CliError."""
    from orchestrator.client.errors import ApiNotFound, NoAnswer
    from orchestrator.client.http import quote

    found: dict[str, str] = {}
    try:
        rows = client.get(f"/v1/stacks/{quote(stack)}/tasks", all=1)["tasks"]
        for row in sorted(rows, key=lambda row: row["release"]):
            if row.get("image_digest"):
                found[row["image"]] = row["image_digest"]
    except ApiNotFound:
        return found
    except NoAnswer as exc:
        raise CliError(
            f"only the controller knows the digests: {exc}",
            hint="start it with corral up, or leave out --resolve-image-digests",
        ) from None
    return found
