"""Puts a note of time around what ``tests/bench/stations.py`` names; nothing in our code knows it.

Found by PYTHONPATH where a bench starts our daemons and commands: each module of CALLS has its
functions wrapped right after it is imported. A line is "ns pid name +" (began) or "-" (ended).
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import inspect
import json
import os
import sys
import time

INTO = os.environ.get("CORRAL_BENCH_INTO", "")
CALLS = json.loads(os.environ.get("CORRAL_BENCH_CALLS") or "{}")
_file = os.open(INTO, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644) if INTO else -1


def note(name, sign):
    os.write(_file, f"{time.monotonic_ns()} {os.getpid()} {name} {sign}\n".encode())


def wrapped(name, function):
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def pieces(*args, **kwargs):
            note(name, "+")
            try:
                async for piece in function(*args, **kwargs):
                    yield piece
            finally:
                note(name, "-")

        return pieces
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args, **kwargs):
            note(name, "+")
            try:
                return await function(*args, **kwargs)
            finally:
                note(name, "-")

        return awaited

    @functools.wraps(function)
    def called(*args, **kwargs):
        note(name, "+")
        try:
            return function(*args, **kwargs)
        finally:
            note(name, "-")

    return called


class Loader(importlib.abc.Loader):
    def __init__(self, inner):
        self.inner = inner

    def create_module(self, spec):
        return self.inner.create_module(spec)

    def exec_module(self, module):
        self.inner.exec_module(module)
        for path in CALLS[module.__name__]:
            holder, name = module, path
            if "." in path:
                owner, name = path.split(".")
                holder = getattr(module, owner)
            plain = inspect.getattr_static(holder, name)
            static = isinstance(plain, staticmethod)
            function = wrapped(f"{module.__name__}:{path}", plain.__func__ if static else plain)
            setattr(holder, name, staticmethod(function) if static else function)


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in CALLS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = Loader(spec.loader)
        return spec


if INTO and CALLS:
    note("python", "+")
    sys.meta_path.insert(0, Finder())
