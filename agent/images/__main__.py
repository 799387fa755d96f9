"""``python -m agent.images import NAME ROOTFS.tar``: put an image into a node's store offline.

Works beside a running agent and without one: the store's files are the interface. Base
images for places without a registry come in this way; ``FROM NAME`` then finds them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

from agent.errors import Later, Refusal
from agent.images.store import ImageStore


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m agent.images", description=__doc__)
    state = Path(os.environ.get("CORRAL_STATE_DIR", "/var/lib/corral")) / "agent"
    run = Path(os.environ.get("CORRAL_RUN_DIR", "/run/corral")) / "agent"
    parser.add_argument("--state-dir", type=Path, default=state, help="default: %(default)s")
    parser.add_argument("--run-dir", type=Path, default=run, help="default: %(default)s")
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("import", help="make a one-layer image of a root file system")
    add.add_argument("name", help="e.g. debian:bookworm-slim")
    add.add_argument("archive", type=Path, help="a tar file, also gzip or zstd")
    add.add_argument("--config", default="{}", help="OCI image config fields as JSON")
    commands.add_parser("list", help="show the complete images")
    prune = commands.add_parser("prune", help="delete images nobody needs")
    prune.add_argument("--all", action="store_true", help="also those that only have a name")
    return parser.parse_args()


async def _run(arguments: argparse.Namespace) -> None:
    store = ImageStore(arguments.state_dir, arguments.run_dir)
    try:
        match arguments.command:
            case "import":
                config = {"config": json.loads(arguments.config)}
                print(await store.add(arguments.name, arguments.archive, config))
            case "prune":
                for digest in await store.prune((), named=arguments.all):
                    print(digest)
            case _:
                for image in await store.list():
                    print(image.digest, image.size, *image.names)
    finally:
        store.close()


def main() -> int:
    """Run the command line; returns the exit code."""
    try:
        asyncio.run(_run(_arguments()))
    except (Refusal, Later, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
