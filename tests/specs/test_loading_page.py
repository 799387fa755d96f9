"""docs/loading.md does what it says, and loading reads only the files it is told to."""

import json
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "loading.md"
_BLOCK = re.compile(r"```(\w+)(?: file=(\S+))?\n(.*?)```", re.DOTALL)


def test_the_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    programs = []
    for language, name, text in _BLOCK.findall(PAGE.read_text()):
        if name:
            (tmp_path / name).write_text(text)
        elif language == "python":
            programs.append(text)
    assert programs
    for program in programs:
        exec(compile(program, str(PAGE), "exec"), {})


# Everything the interpreter would do to the world outside goes through an audit event.
PROGRAM = """
import json, os, sys
import specs, specs.compose.load, specs.compose.project.selection, specs.compose.project.consistency
import specs.compose.project.environment, specs.compose.project.normalize
import specs.compose.merging.extends, yaml, graphlib
import difflib, encodings.idna
seen = []
def hook(event, args):
    if event == "open":
        path, mode, flags = args
        if isinstance(path, (str, bytes)) and not str(path).endswith((".py", ".pyc")):
            seen.append([event, str(path), bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))])
    elif event.split(".")[0] in ("socket", "subprocess", "shutil", "ctypes") or event in (
        "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.chmod",
        "os.chown", "os.exec", "os.fork", "os.forkpty", "os.kill", "os.posix_spawn", "os.spawn",
        "os.system", "os.truncate", "os.utime", "os.putenv", "os.unsetenv", "os.chdir",
    ):
        seen.append([event, "", True])
sys.addaudithook(hook)
specs.load()
hooked, seen = seen, []
print(json.dumps(hooked))
"""


def test_loading_only_reads_what_it_is_told_to(tmp_path):
    files = {
        "compose.yaml": "include: [inc/compose.yaml]\nservices:\n"
        "  web: {extends: {file: base.yaml, service: b}, env_file: e.env, configs: [c], "
        "secrets: [s]}\nconfigs: {c: {file: ./c.txt}}\nsecrets: {s: {file: ./s.txt}}\n",
        "compose.override.yaml": "services: {web: {image: 'x:1'}}\n",
        "base.yaml": "services: {b: {image: 'b:1', label_file: l.env}}\n",
        "inc/compose.yaml": "services: {i: {image: 'i:1'}}\n",
        "e.env": "A=1\n",
        "l.env": "L=1\n",
        ".env": "X=1\n",
        "c.txt": "content",
        "s.txt": "secret",
        "unrelated.yaml": "services: {}\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PAGE.parents[1]), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    events = json.loads(done.stdout)
    assert [event for event in events if event[2]] == []
    read = {Path(path).resolve().relative_to(tmp_path).as_posix() for _, path, _ in events}
    told = {"compose.yaml", "compose.override.yaml", "base.yaml", "inc/compose.yaml", "e.env"}
    assert told | {"l.env", ".env"} <= read <= told | {"l.env", ".env", "inc/.env"}
