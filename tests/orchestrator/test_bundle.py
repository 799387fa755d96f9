"""The agent's archive: complete, reproducible, nothing of the controller in it."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
import py_compile
import runpy
import subprocess
import sys
import tarfile
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.nodes.bootstrap import bundle
from tests import warm_daemons


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return bundle.build(tmp_path_factory.mktemp("bundles"))


def test_it_holds_agent_specs_supervisor_and_what_they_import(packed):
    with tarfile.open(packed.archive) as tar:
        names = tar.getnames()
    tops = {name.partition("/")[0] for name in names}
    assert {"agent", "specs", "aiohttp", "pydantic", "pydantic_core", "supervisor.py"} <= tops
    assert names[-1] == "bundle.json"
    assert not tops & {"orchestrator", "scheduler", "networkx", "asyncssh", "pytest", "bin"}
    assert not [name for name in names if name.startswith(("/", ".."))]
    assert hashlib.sha256(packed.archive.read_bytes()).hexdigest() == packed.digest


def test_it_runs_with_nothing_else_installed(packed, tmp_path):
    subprocess.run(["tar", "-xzf", packed.archive, "-C", tmp_path], check=True)
    code = (
        "import agent.daemon, agent.dns.server, specs.wire, importlib.metadata as m;"
        "print(m.version('corral'))"
    )
    # -S: no site-packages of the machine's own
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert packed.name.startswith(done.stdout.strip() + "-")


def byte_code(folder):
    """Return of every compiled module what it is and when it was written."""
    return {
        path.relative_to(folder): (zlib.crc32(path.read_bytes()), path.stat().st_mtime_ns)
        for path in folder.rglob("*.pyc")
    }


def test_its_python_finds_every_module_compiled(packed, tmp_path):
    subprocess.run(["tar", "-xzf", packed.archive, "-C", tmp_path], check=True)
    sent = byte_code(tmp_path)
    modules = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.py")}
    wanted = {Path(importlib.util.cache_from_source(path)) for path in modules}
    assert set(sent) == wanted - {Path(importlib.util.cache_from_source("supervisor.py"))}
    argv = [sys.executable, "-S", "-P", "-c", "import agent.daemon, agent.dns.server"]
    subprocess.run(argv, env={"PYTHONPATH": str(tmp_path)}, check=True)
    assert byte_code(tmp_path) == sent, "what was sent was used: none was made anew"
    # Who mends something on a node is heard.
    main = tmp_path / "agent" / "__main__.py"
    main.write_text("raise SystemExit('mended')")
    argv = [sys.executable, "-S", "-P", "-m", "agent"]
    done = subprocess.run(
        argv, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.stderr.endswith("mended\n")


def _compile(path, mode=py_compile.PycInvalidationMode.TIMESTAMP):
    py_compile.compile(str(path), doraise=True, invalidation_mode=mode)


def of_an_earlier_source(path):
    path.write_text("WHAT = 1\n")
    os.utime(path, (1_000_000, 1_000_000))
    _compile(path)


def of_a_source_of_the_same_moment(path):
    path.write_text("WHAT = 'long'\n")
    os.utime(path, (2_000_000, 2_000_000))
    _compile(path)


def told_apart_by_content(path):
    path.write_text("WHAT = 1\n")
    _compile(path, py_compile.PycInvalidationMode.UNCHECKED_HASH)


def of_another_python(path):
    path.write_text("WHAT = 2\n")
    os.utime(path, (2_000_000, 2_000_000))
    _compile(path)
    cached = Path(importlib.util.cache_from_source(str(path)))
    cached.write_bytes(b"\0\0\r\n" + cached.read_bytes()[4:])


def none(path):
    pass


@pytest.mark.parametrize(
    "cache",
    [
        none,
        of_an_earlier_source,
        of_a_source_of_the_same_moment,
        told_apart_by_content,
        of_another_python,
    ],
)
def test_a_cache_of_something_else_is_not_sent(tmp_path, cache):
    path = tmp_path / "a.py"
    cache(path)
    path.write_text("WHAT = 2\n")
    os.utime(path, (2_000_000, 2_000_000))
    sent = bundle.compiled(path, path.read_bytes())
    (tmp_path / "b.pyc").write_bytes(sent)
    assert runpy.run_path(str(tmp_path / "b.pyc"))["WHAT"] == 2


def test_equal_content_gives_equal_bytes_and_is_packed_once(packed, tmp_path):
    again = bundle.build(tmp_path)
    assert (again.name, again.digest) == (packed.name, packed.digest)
    before = packed.archive.stat().st_mtime_ns
    assert bundle.build(packed.archive.parent) == packed
    assert packed.archive.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "def f():\n class C:\n  {}",
        "async def f():\n async with x:\n  async for y in z:\n   {}",
        "if x: pass\nelif y: {}",
        "if x: pass\nelse: {}",
        "try: {}\nexcept E: pass",
        "try: pass\nexcept E: {}",
        "try: pass\nexcept* E: {}",
        "try: pass\nexcept E: pass\nelse: {}",
        "try: pass\nfinally: {}",
        "for x in y: pass\nelse: {}",
        "while x: pass\nelse: {}",
        "match x:\n case 1: pass\n case _: {}",
        "with x: {}",
    ],
)
def test_an_import_is_found_wherever_it_stands(tmp_path, around):
    (tmp_path / "a.py").write_text(around.format("import found.inner, other"))
    (tmp_path / "b.py").write_text(around.format("from found_too.inner import x"))
    assert bundle.imported([tmp_path]) == {"found", "other", "found_too"}


def small(tmp_path):
    """Return a package that needs no other."""
    package = tmp_path / "small"
    package.mkdir()
    (package / "__init__.py").write_text("import json\n")
    return package


def test_what_a_killed_packer_left_goes_and_what_another_packs_stays(tmp_path):
    old, new = (tmp_path / f".agent-1-py3-x.tar.gz.{pid}" for pid in (1, 2))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    bundle.build(tmp_path, [small(tmp_path)])
    assert (old.exists(), new.exists()) == (False, True)


def test_changed_content_has_another_name(packed, tmp_path):
    other = tmp_path / "agent"
    other.mkdir()
    (other / "__init__.py").write_text("import yaml\n")
    changed = bundle.build(tmp_path, ["specs", other])
    assert changed.name != packed.name


def test_a_package_that_is_missing_is_named(tmp_path):
    with pytest.raises(bundle.BundleFailed, match="no_such_package"):
        bundle.build(tmp_path, ["no_such_package"])


@pytest.fixture
def shared(monkeypatch):
    """Packing as warm daemons do it, and how often that was done."""
    monkeypatch.setattr(warm_daemons.Packed, "ROOM", 1 << 20)
    times = []

    def cold(folder):
        times.append(folder)
        return bundle.build(folder, [small(folder)])

    cold.cache_clear = times.clear
    return warm_daemons.Packed(cold), times


def test_a_warm_controller_has_what_another_packed(shared, tmp_path):
    provided, times = shared
    (tmp_path / "one").mkdir()
    one, two = provided(tmp_path / "one"), provided(tmp_path / "two")
    assert times == [tmp_path / "one"]
    assert two == dataclasses.replace(one, archive=tmp_path / "two" / one.archive.name)
    assert two.archive.read_bytes() == one.archive.read_bytes()


def test_several_threads_of_a_warm_controller_have_it_at_once(shared, tmp_path):
    provided, _ = shared
    (tmp_path / "one").mkdir()
    one = provided(tmp_path / "one")
    for number in range(20):
        here = tmp_path / f"two-{number}"
        together = threading.Barrier(4)

        def ask(_, here=here, together=together):
            together.wait()
            return provided._kept(here)

        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(ask, range(4)))
        assert {one.digest} == {found.digest for found in made}
        assert [path.name for path in here.iterdir()] == [one.archive.name]


@pytest.mark.parametrize("place", [0, 20, 300, 2000])
def test_what_is_not_whole_in_memory_is_packed_anew(shared, tmp_path, place):
    provided, times = shared
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    provided(tmp_path / "one")
    length, size = provided.LENGTHS.unpack(provided.memory[: provided.LENGTHS.size])
    end = provided.LENGTHS.size + length + size
    provided.memory[min(place, end - 1)] ^= 255
    made = provided(tmp_path / "two")
    assert times == [tmp_path / "one", tmp_path / "two"]
    assert hashlib.sha256(made.archive.read_bytes()).hexdigest() == made.digest
