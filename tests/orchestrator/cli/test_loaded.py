"""A project is not loaded again while nothing of what it was made of has changed; else it is."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import specs
from orchestrator.cli import loaded, project
from orchestrator.cli.parsers import global_parser
from specs.kit import reading

ROOT = Path(__file__).parents[3]
FILE = """\
include: [more/compose.yaml]
services:
  web:
    image: app:${TAG:-1}
    extends: {file: base.yaml, service: base}
    env_file: [{path: web.env, required: false}]
    environment: [PASSED]
  tool:
    image: tool
    profiles: [tools]
"""


@pytest.fixture(autouse=True)
def shop(clean_environment, monkeypatch):
    """A project of several files, all of them old enough to be believed."""
    monkeypatch.setattr(loaded, "FRESH", -60.0)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(clean_environment.run))
    monkeypatch.delenv("TAG", raising=False)
    monkeypatch.setenv("PASSED", "through")
    work = clean_environment.work
    (work / "compose.yaml").write_text(FILE)
    (work / "base.yaml").write_text("services: {base: {labels: {from: base}}}\n")
    (work / "more").mkdir()
    (work / "more/compose.yaml").write_text("services: {db: {image: db}}\n")
    return work


def flags(*words: str):
    return global_parser().parse_args([*words, "run"])


def whole(*words: str, services: tuple[str, ...] = ()):
    return project.with_profiles_of(flags(*words), services)


def kept() -> list[Path]:
    where = Path(os.environ["CORRAL_RUN_DIR"])
    return [*where.glob("projects/*.json"), *where.glob("corral/*.json")]


@pytest.fixture
def loads(monkeypatch):
    """Every time the loader is asked."""
    asked = []
    real = project.load

    def load(*args, **options):
        asked.append(args)
        return real(*args, **options)

    monkeypatch.setattr(project, "load", load)
    return asked


def test_a_project_that_has_not_changed_is_as_it_was_and_not_loaded(loads):
    first = whole()
    again = whole()
    assert len(loads) == 1
    assert again.as_json() == json.loads(json.dumps(first.as_json()))
    assert again.environment == first.environment
    assert again.model["services"]["web"]["environment"] == {"PASSED": "through"}
    found = str(again.origin("services.web.labels.from"))
    assert found == str(first.origin("services.web.labels.from"))
    assert found.startswith(str(Path.cwd() / "base.yaml"))


CHANGES = {
    "the file": lambda at: (at / "compose.yaml").write_text(FILE.replace("app", "other")),
    "the file, of the same size": lambda at: (at / "compose.yaml").write_text(
        FILE.replace("app:", "ppa:")
    ),
    "the file, put in its place": lambda at: (
        (at / "new").write_text(FILE),
        (at / "new").replace(at / "compose.yaml"),
    ),
    "an included file": lambda at: (at / "more/compose.yaml").write_text(
        "services: {db: {image: db2}}\n"
    ),
    "an extended file": lambda at: (at / "base.yaml").write_text(
        "services: {base: {labels: {from: other}}}\n"
    ),
    "an override that was not there": lambda at: (at / "compose.override.yaml").write_text(
        "services: {web: {labels: {more: x}}}\n"
    ),
    "another file of the first choice": lambda at: (at / "compose.yml").write_text("{}"),
    "variables that were not there": lambda at: (at / ".env").write_text("TAG=7\n"),
    "variables of the include": lambda at: (at / "more/.env").write_text("TAG=7\n"),
    "an env_file that was not there": lambda at: (at / "web.env").write_text("A=b\n"),
    "a file that is gone": lambda at: (at / "more/compose.yaml").rename(at / "away"),
    "a variable of the environment": lambda at: os.environ.update(TAG="8"),
    "a variable passed through": lambda at: os.environ.update(PASSED="other"),
    "a variable that is gone": lambda at: os.environ.pop("PASSED"),
    "the loader": lambda at: None,
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_has_changed_is_loaded_again(shop, loads, monkeypatch, what):
    monkeypatch.setenv("TAG", "1")
    whole()
    CHANGES[what](shop)
    if what == "the loader":
        monkeypatch.setattr(loaded, "_loader", lambda: [["another"]])
    try:
        whole()
    except project.CliError:
        assert what == "a file that is gone"
    assert len(loads) == 2, what


@pytest.mark.parametrize(
    "words",
    [("-p", "other"), ("--profile", "tools"), ("-f", "more/compose.yaml"), ("--all-resources",)],
    ids=" ".join,
)
def test_other_flags_are_another_project(loads, words):
    whole()
    whole(*words)
    whole(*words)
    assert len(loads) == 2


def test_another_folder_is_another_project(shop, loads, monkeypatch):
    whole()
    monkeypatch.chdir(shop / "more")
    assert list(whole().model["services"]) == ["db"]


def test_a_service_that_is_named_wakes_its_profile_from_the_cache_too(loads):
    for _ in range(2):
        assert "tool" in whole(services=("tool",)).model["services"]
    assert len(loads) == 2  # without the profile, and with it


@pytest.mark.parametrize("word", ["_", "SHLVL", "OLDPWD"])
def test_what_differs_from_shell_to_shell_does_not_count(loads, monkeypatch, word):
    monkeypatch.setenv(word, "1")
    whole()
    monkeypatch.setenv(word, "2")
    whole()
    assert len(loads) == 1


@pytest.mark.parametrize(
    "key",
    [
        *("hostname: '${SHLVL}'", "hostname: $OLDPWD", "hostname: '${_}'", "hostname: $_"),
        *("hostname: '${_:-x}'", "environment: [_]", "environment: {_: }"),
    ],
)
def test_but_where_a_file_asks_for_it(shop, loads, monkeypatch, key):
    monkeypatch.setenv("_", "/bin/one")
    (shop / "compose.yaml").write_text(f"services: {{web: {{image: a, {key}}}}}\n")
    whole()
    assert kept() == []


# What somebody does to a file right after it was read, while the rest is still being loaded.
MEANWHILE = {
    "a link is switched": ("compose.yaml", lambda at: (
        (at / "new").symlink_to("v2.yaml"), (at / "new").rename(at / "compose.yaml"))),
    "a link behind it is switched": ("compose.yaml", lambda at: (
        (at / "new").symlink_to("v2.yaml"), (at / "new").rename(at / "v.yaml"))),
    "an override goes": ("compose.override.yaml", lambda at: (
        (at / "compose.override.yaml").unlink())),
    "it is written in place": ("v1.yaml", lambda at: (
        (at / "v1.yaml").write_text((at / "v2.yaml").read_text()))),
}  # fmt: skip


@pytest.mark.parametrize("what", MEANWHILE)
def test_what_changes_while_it_is_loaded_is_read_again(shop, monkeypatch, what):
    name, change = MEANWHILE[what]
    for number in "12":
        (shop / f"v{number}.yaml").write_text(f"services: {{web: {{image: 'app:{number}'}}}}\n")
    (shop / "compose.yaml").unlink()
    (shop / "v.yaml").symlink_to("v1.yaml")
    (shop / "compose.yaml").symlink_to("v.yaml")
    (shop / "compose.override.yaml").write_text("services: {web: {labels: {a: b}}}\n")
    real, done = reading.read, []

    def read(path, *limit):
        data = real(path, *limit)
        if Path(path).name in (name, "compose.yaml" if name == "v1.yaml" else name) and not done:
            done.append(change(shop))
        return data

    monkeypatch.setattr(reading, "read", read)
    whole()
    assert done
    fresh = specs.load(files=[], project_name=None, project_directory=None)
    assert whole().model == json.loads(json.dumps(fresh.model))


def test_a_link_on_the_way_to_a_folder_counts(shop, loads):
    for name in ("one", "two"):
        (shop / name / "src").mkdir(parents=True)
    (shop / "now").symlink_to("one")
    (shop / "src").symlink_to("now/src")
    (shop / "compose.yaml").write_text(
        "services: {web: {image: a, build: ., develop: "
        "{watch: [{path: ./src, action: sync, target: /app}]}}}\n"
    )
    whole()
    (shop / "now").unlink()
    (shop / "now").symlink_to("two")
    (rule,) = whole().model["services"]["web"]["develop"]["watch"]
    assert rule["path"] == str(shop / "two/src") or len(loads) == 2


@pytest.mark.parametrize(("ns", "age", "doubt"), [
    (0, 1.0, True), (0, 3.0, False), (5, 0.05, True), (5, 1.0, False), (5, -9.0, True),
])  # fmt: skip
def test_times_of_whole_seconds_are_believed_later(monkeypatch, ns, age, doubt):
    monkeypatch.setattr(loaded, "FRESH", 0.1)
    at = 1_700_000_000
    stamp = ["compose.yaml", "/compose.yaml", stat.S_IFREG, 1, 2, 3, 2, *[at * 10**9 + ns] * 3]
    assert loaded._in_doubt(stamp, at + age) == doubt


def test_another_name_in_the_file_is_kept_in_its_place(shop, loads):
    for name in ("a", "b"):
        (shop / "compose.yaml").write_text(f"name: {name}\nservices: {{web: {{image: a}}}}\n")
        whole()
    (path,) = kept()
    assert path.name.startswith("b.")
    assert whole().name == "b"
    assert len(loads) == 2


def test_what_changed_while_it_was_read_is_not_kept(monkeypatch):
    monkeypatch.setattr(loaded, "FRESH", 60.0)
    whole()
    assert kept() == []


def test_standard_input_and_pipes_are_not_kept(shop, monkeypatch):
    theirs, ours = os.pipe()
    os.write(ours, b"services: {web: {image: a}}\n")
    os.close(ours)
    whole("-f", f"/dev/fd/{theirs}")
    os.close(theirs)
    assert kept() == []


def test_it_is_for_its_owner_alone_and_in_memory(clean_environment, monkeypatch):
    whole()
    (path,) = kept()
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    path.chmod(0o644)
    assert loaded.lookup(flags()) is None
    path.unlink()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    whole()
    assert kept() == []


@pytest.mark.parametrize(
    "name",
    ["DB_PASSWORD", "api_token", "SECRET", "SIGNING_KEY", "DB_PASSWD", "PGPASS", "DATABASE_URL"],
)
def test_a_secret_of_the_environment_is_never_written(shop, monkeypatch, name):
    monkeypatch.setenv(name, "db://me:hunter2@db/x" if "URL" in name else 'hunter"2')
    whole()
    assert len(kept()) == 1  # it is not in the project
    (shop / "compose.yaml").write_text(f"services: {{web: {{image: a, environment: [{name}]}}}}\n")
    whole()
    assert len(kept()) == 1
    assert "hunter" not in kept()[0].read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"key": 1}'])
def test_a_broken_cache_is_no_cache(loads, text):
    whole()
    (path,) = kept()
    path.write_text(text)
    whole()
    assert len(loads) == 2


def test_warnings_are_said_each_time(shop, loads, capsys):
    (shop / "compose.yaml").write_text("version: '3'\nservices: {web: {image: a}}\n")
    whole()
    first = capsys.readouterr().err
    whole()
    assert "version" in first
    assert capsys.readouterr().err == first
    assert len(loads) == 1


def test_what_is_kept_of_a_stack_goes_with_it():
    for name in ("app", "app-two", "ap"):
        whole("-p", name)
    loaded.forget("app")
    assert sorted(path.name.partition(".")[0] for path in kept()) == ["ap", "app-two"]
    loaded.forget("nobody")


def test_only_so_many_are_kept(monkeypatch):
    monkeypatch.setattr(loaded, "KEPT", 2)
    for name in "abcd":
        whole("-p", name)
    assert len(kept()) == 2


def test_run_and_exec_load_next_to_nothing():
    program = (
        "import sys; from orchestrator.cli import main, parsers, session, project\n"
        "from orchestrator.cli.commands import run, exec\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    heavy = {"hashlib", "yaml", "pydantic", "dataclasses", "typing", "subprocess", "pathlib"}
    heavy |= {"termios", "shlex", "specs.problems", "specs.compose", "orchestrator.embedded"}
    assert heavy & {*done.stdout.split()} == set()
