"""What a file a user names may be instead of a file: told in words, within a second.

Compose waits for ever for a named pipe and reads a device until memory ends. The table is
where a file is named x what it turns out to be.
"""

import os
import socket
import threading
import time

import pytest

from specs.bounds import MOST_BYTES
from specs.compose.load import examine
from specs.compose.project.content import read_contents
from specs.kit import reading
from specs.kit.reading import TEXT_LIMIT
from specs.problems import SpecError

# where it is named -> (files beside it, options of the load)
PLACES = {
    "compose": ({}, {"files": ["odd"]}),
    "second compose": ({"c.yaml": "services: {a: {image: x}}"}, {"files": ["c.yaml", "odd"]}),
    "COMPOSE_FILE": ({}, {"environ": {"COMPOSE_FILE": "odd"}}),
    "include": ({"c.yaml": "include: [odd]\nservices: {a: {image: x}}"}, {}),
    "include env_file": (
        {
            "c.yaml": "include: [{path: i.yaml, env_file: odd}]",
            "i.yaml": "services: {a: {image: x}}",
        },
        {},
    ),
    "extends": ({"c.yaml": "services: {a: {extends: {file: odd, service: b}}}"}, {}),
    "env_file": ({"c.yaml": "services: {a: {image: x, env_file: odd}}"}, {}),
    "env_file raw": (
        {"c.yaml": "services: {a: {image: x, env_file: [{path: odd, format: raw}]}}"},
        {},
    ),
    "label_file": ({"c.yaml": "services: {a: {image: x, label_file: odd}}"}, {}),
    "--env-file": ({"c.yaml": "services: {a: {image: x}}"}, {"env_files": ["odd"]}),
    "secret": (
        {"c.yaml": "services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {file: odd}}"},
        {},
    ),
    "config": (
        {"c.yaml": "services: {a: {image: x, configs: [s]}}\nconfigs: {s: {file: odd}}"},
        {},
    ),
}


def pipe(path):
    os.mkfifo(path)


def endless_pipe(path):
    os.mkfifo(path)

    def write():
        try:
            with open(path, "wb", buffering=0) as out:
                while True:
                    out.write(b"# more\n" * 1000)
        except OSError:
            return  # nobody reads any more

    threading.Thread(target=write, daemon=True).start()


def held_pipe(path):
    """Make a pipe somebody opened to write and never closes."""
    os.mkfifo(path)
    os.open(path, os.O_RDWR)  # closed with the process


def device(path):
    path.symlink_to("/dev/zero")


def large(path):
    with path.open("wb") as file:
        file.truncate(TEXT_LIMIT * 1000)


def plug(path):
    held = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path must be short
    try:
        held.bind(path.name)
    finally:
        os.chdir(here)
        held.close()


KINDS = {
    "a pipe without a writer": (pipe, "it is a named pipe into which nobody writes"),
    "a pipe with an endless writer": (endless_pipe, "it is larger than"),
    "a pipe with a silent writer": (held_pipe, "it is a named pipe"),
    "/dev/zero": (device, "it is a device, not a file"),
    "a huge file": (large, "it is larger than"),
    "a socket": (plug, "it is a socket, not a file"),
    "a folder": (lambda path: path.mkdir(), "Is a directory"),
}


def load(folder, place):
    """Return what is said of ``odd``, named at this place."""
    files, options = PLACES[place]
    for name, text in files.items():
        (folder / name).write_text(text)
    given = {"environ": {}, "files": [] if "environ" in options else ["c.yaml"], **options}
    project, problems = examine(**given, cwd=str(folder), project_name="demo")
    if place in ("secret", "config"):
        assert not problems
        try:
            return read_contents(project), []
        except SpecError as error:
            return None, error.problems
    return project, [problem for problem in problems if problem.severity == "error"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_file_is_refused_soon(tmp_path, monkeypatch, place, kind):
    make, words = KINDS[kind]
    if make is endless_pipe:  # its writer is a thread of this busy process
        monkeypatch.setattr(reading, "PIPE_SECONDS", 60.0)
    make(tmp_path / "odd")
    began, worked = time.monotonic(), time.thread_time()
    _, problems = load(tmp_path, place)
    assert time.thread_time() - worked < 0.5
    assert time.monotonic() - began < 60  # a second, and what a busy machine takes
    told = [problem for problem in problems if str(tmp_path / "odd") in problem.message]
    assert len(told) == 1, problems
    assert words in told[0].message, told
    assert told[0].hint


@pytest.mark.parametrize("place", [*PLACES])
def test_a_pipe_of_the_shell_is_read(tmp_path, place):
    text = "services: {a: {image: x}, b: {image: y}}\n"
    if "env" in place or "label" in place:
        text = "NAME=value\n"
    if place == "COMPOSE_FILE":
        text = "services: {a: {image: x}}\n"
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    (tmp_path / "odd").symlink_to(f"/proc/self/fd/{reader}")
    try:
        found, problems = load(tmp_path, place)
        assert (found is not None, problems) == (True, [])
    finally:
        os.close(reader)


def test_a_named_pipe_with_a_writer_is_read(tmp_path, monkeypatch):
    """Tools that keep secrets hand out `.env` so."""
    monkeypatch.setattr(reading, "PIPE_SECONDS", 60.0)
    os.mkfifo(tmp_path / ".env")
    writer = threading.Thread(target=lambda: (tmp_path / ".env").write_text("TAG=7\n"))
    writer.start()
    (tmp_path / "compose.yaml").write_text("services: {a: {image: 'x:${TAG}'}}")
    project, problems = examine(cwd=str(tmp_path), environ={}, project_name="demo")
    writer.join()
    assert project.model["services"]["a"]["image"] == "x:7"
    assert not problems


def test_a_pipe_as_default_env_file_is_not_passed_over(tmp_path):
    os.mkfifo(tmp_path / ".env")
    (tmp_path / "compose.yaml").write_text("services: {a: {image: x}}")
    _, problems = examine(cwd=str(tmp_path), environ={}, project_name="demo")
    assert [problem.code for problem in problems] == ["unreadable-file"]


@pytest.mark.parametrize("place", ["env_file", "--env-file", "label_file", "secret", "config"])
def test_dev_null_is_an_empty_file(tmp_path, place):
    (tmp_path / "odd").symlink_to(os.devnull)
    _, problems = load(tmp_path, place)
    assert not problems


def test_endless_standard_input_is_refused(tmp_path, monkeypatch):
    with open("/dev/zero", encoding="latin-1") as zero:
        monkeypatch.setattr("sys.stdin", zero)
        _, problems = examine(["-"], cwd=str(tmp_path), environ={}, project_name="demo")
    assert "larger than 4 MiB" in problems[0].message


def test_a_secret_has_its_own_limit(tmp_path):
    (tmp_path / "odd").write_bytes(b"x" * (MOST_BYTES + 1))
    _, problems = load(tmp_path, "secret")
    assert [(problem.code, problem.hint) for problem in problems] == [
        ("too-large", "mount it as a volume instead")
    ]


def chained(count, *, base_first, body="image: x"):
    step = -1 if base_first else 1
    last = 0 if base_first else count - 1
    lines = ["services:"]
    for index in range(count):
        lines += [f"  s{index}:", f"    {body.replace('N', str(index))}"]
        if index != last:
            lines.append(f"    extends: s{index + step}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("count", "refused"), [(2, 0), (100, 0), (101, 0), (102, 1), (300, 1), (3000, 1)]
)
@pytest.mark.parametrize("base_first", [True, False])
def test_a_chain_of_extends_is_refused_once_by_its_length(tmp_path, count, refused, base_first):
    """The order in the file does not matter: what was merged already still counts."""
    text = chained(count, base_first=base_first, body="environment: {KN: v}")
    text = text.replace("environment: {K0", "image: x\n    environment: {K0", 1)
    text = text.replace(
        f"environment: {{K{count - 1}", f"image: x\n    environment: {{K{count - 1}"
    )
    worked = time.thread_time()
    _, problems = examine(["-"], stdin=text, cwd=str(tmp_path), environ={}, project_name="demo")
    assert time.thread_time() - worked < 20  # 0.4 s on a machine with nothing else to do
    assert sum(problem.code == "too-long" for problem in problems) == refused


@pytest.mark.parametrize("base_first", [True, False])
def test_a_chain_that_is_refused_is_all_that_is_said(tmp_path, base_first):
    """Only the base has the image, as usual: who extends it in vain lacks nothing else."""
    text = chained(3000, base_first=base_first, body="environment: {KN: v}")
    base = 0 if base_first else 2999
    text = text.replace(f"environment: {{K{base}:", f"image: x\n    environment: {{K{base}:")
    worked = time.thread_time()
    _, problems = examine(["-"], stdin=text, cwd=str(tmp_path), environ={}, project_name="demo")
    assert time.thread_time() - worked < 20
    assert [problem.code for problem in problems] == ["too-long"]


BROKEN = {
    # services a, b, c ... where `a` cannot be extended -> what is said, once
    "the service is not there": ("a: {extends: nope}", "does not exist"),
    "the file is not there": ("a: {extends: {file: nope.yaml, service: x}}", "cannot be read"),
    "the file has no services": ("a: {extends: {file: empty.yaml, service: x}}", "has no services"),
    "the file lacks the service": ("a: {extends: {file: other.yaml, service: x}}", "not exist"),
    "a circle": ("a: {extends: b}, b: {extends: a}", "circular"),
    "itself": ("a: {extends: a}", "circular"),
}


@pytest.mark.parametrize("users", ["", ", u: {extends: a}, v: {extends: u}"])
@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_extended_is_told_once(tmp_path, case, users):
    services, said = BROKEN[case]
    (tmp_path / "empty.yaml").write_text("{}")
    (tmp_path / "other.yaml").write_text("services: {y: {image: y}}")
    text = f"services: {{{services}{users}}}"
    _, problems = examine(["-"], stdin=text, cwd=str(tmp_path), environ={}, project_name="demo")
    assert [said in problem.message for problem in problems] == [True], problems


def test_a_long_chain_through_files_is_refused_once(tmp_path):
    for index in range(300):
        (tmp_path / f"{index}.yaml").write_text(
            f"services: {{s: {{image: x, extends: {{file: {index + 1}.yaml, service: s}}}}}}"
        )
    _, problems = examine(["0.yaml"], cwd=str(tmp_path), environ={}, project_name="demo")
    assert [problem.code for problem in problems] == ["too-long"]
