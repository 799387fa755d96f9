"""`corral config`: load the files, say what is wrong, print what they mean.

Each question (`--services`, `--hash`, `--explain` ...) has its function in
orchestrator.cli.commands.config_questions; what is printed by default is the canonical model.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from orchestrator.cli import said
from orchestrator.cli.errors import USAGE, CliError

if TYPE_CHECKING:
    import argparse

    from orchestrator.cli.session import Invocation
    from specs import Project

LISTS = {
    "services": "names of the services",
    "volumes": "names of the volumes",
    "networks": "names of the networks",
    "models": "names of the models",
    "images": "images the services use",
    "profiles": "profiles the services name",
}
STAGES = {
    "no_interpolate": "leave variables as they are written",
    "no_normalize": "leave out implied defaults (default network, names)",
    "no_path_resolution": "leave relative paths relative",
    "no_consistency": "do not check that the parts fit together",
    "no_env_resolution": "leave env_file and unset environment keys as they are",
}


def describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("names", nargs="*", metavar="SERVICE", help="only these services (and what they need)")
    add("--format", choices=("yaml", "json"), default=None, help="yaml (default) or json")
    add("-q", "--quiet", action="store_true", help="only check")
    add("-o", "--output", metavar="FILE", help="write to a file")
    questions = parser.add_mutually_exclusive_group()
    ask = questions.add_argument
    for name, text in LISTS.items():
        ask(f"--{name}", action="store_true", help=text)
    ask("--variables", action="store_true", help="variables the files ask for, and their defaults")
    ask("--environment", action="store_true", help="variables known to interpolation")
    ask("--hash", metavar="SERVICES", help="content hash of each service: '*' or names with commas")
    ask("--explain", metavar="PATH|VAR", help="where a value or a variable comes from")
    ask("--schema", action="store_true", help="JSON schema of the files, for editors")
    for name, text in STAGES.items():
        add(f"--{name.replace('_', '-')}", action="store_true", help=text)
    add(
        "--resolve-image-digests",
        action="store_true",
        help="name images by the digests of the running release",
    )
    add(
        "--lock-image-digests",
        action="store_true",
        help="print an override file that pins the images to these digests",
    )


def run(args: argparse.Namespace, session: Invocation) -> int:
    _write(_answer(args, session), args.output)
    return 0


def _answer(args: argparse.Namespace, session: Invocation) -> str:
    from orchestrator.cli.commands import config_questions as ask

    if args.schema:
        return ask.schema(args.format or "json")
    options = {name: True for name in STAGES if getattr(args, name)}
    if args.variables:
        return ask.variables(_load(args, session, {**options, "no_interpolate": True}), args.format)
    project = _load(args, session, options)
    return "" if args.quiet else _about(project, args, session)


def _about(project: Project, args: argparse.Namespace, session: Invocation) -> str:
    from orchestrator.cli.commands import config_questions as ask

    chosen = next((name for name in LISTS if getattr(args, name)), None)
    if chosen is not None:
        digests = chosen == "images" and (args.resolve_image_digests or args.lock_image_digests)
        model = ask.with_digests(project.model, session.client) if digests else project.model
        return "".join(f"{name}\n" for name in ask.listed(model, chosen))
    if args.environment:
        return ask.environment(project)
    if args.hash is not None:
        return ask.hashes(project, args.hash)
    if args.explain is not None:
        from orchestrator.cli.show import explain

        return explain.explain(project, args.explain)
    model = project.model
    if args.resolve_image_digests or args.lock_image_digests:
        model = ask.with_digests(model, session.client)
    if args.lock_image_digests:
        built = sorted(name for name, spec in model["services"].items() if spec.get("build"))
        if built:
            said.tell(f"not locked, for the file builds them: {', '.join(built)}", said.WARNING)
        model = ask.images_only(model)
    from specs.compose.project.render import render

    return render(model, args.format or "yaml", double=not args.no_interpolate)


def _load(args: argparse.Namespace, session: Invocation, options: dict[str, Any]) -> Project:
    from orchestrator.cli import project

    # Whoever asks for a profile's service by name, or for all profiles, must see them.
    flags = session.flags
    if args.profiles and not flags.profile:
        flags.profile = ["*"]
    return project.load(flags, args.names, **options)


def _write(text: str, output: str | None) -> None:
    if output is None:
        sys.stdout.write(text)
        return
    try:
        with open(output, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
    except OSError as exc:
        raise CliError(f"cannot write {output}: {exc.strerror}", code=USAGE) from None
