"""The corpus of stacks: where they are, how each is loaded, and its golden model."""

import json
import os
from pathlib import Path

import specs

ROOT = Path(__file__).parent / "corpus"
STACKS = sorted(path for path in (ROOT / "stacks").iterdir() if path.is_dir())
UPDATE = bool(os.environ.get("CORRAL_UPDATE_GOLDEN"))


def options_of(folder):
    """Return the options.json of a stack as keyword arguments of specs.load."""
    path = folder / "options.json"
    options = json.loads(path.read_text()) if path.exists() else {}
    options["environ"] = {"HOME": "/home/me", **options.get("environ", {})}
    options["cwd"] = str(folder)
    return options


def load_stack(folder):
    return specs.load(**options_of(folder))


def without_place(text, folder):
    """Return text that is the same wherever the repository lies."""
    return text.replace(str(folder), "/project").replace(str(folder.parent), "/beside")


def golden(path, text):
    """Return what the golden file holds; CORRAL_UPDATE_GOLDEN=1 writes it first."""
    if UPDATE:
        path.write_text(text)
    return path.read_text() if path.exists() else "(no golden file)"
