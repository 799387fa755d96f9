"""No input gives a traceback, takes a second or 256 MiB: a little here, 10^5 in the slow lane."""

import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from specs import units
from specs.compile import values
from specs.compose.load import examine
from specs.compose.project.render import render
from specs.compose.reading.envfile import EnvFile, EnvFileError
from specs.compose.reading.interpolate import Substitution, TemplateError, placeholders
from specs.compose.reading.variables import Environment
from specs.lint.report import lint
from specs.problems import render as render_problem
from tests.specs import fuzz_inputs

SEED = int(os.environ.get("CORRAL_SEED", "1"))
ENVIRON = {"HOME": "/home/me", "A": "a", "B": "", "N": "5"}
SECOND = 1.0
MEMORY = 256 << 20
ROUNDS = {"source": 40_000, "grown": 10_000, "templates": 20_000, "env": 15_000, "short": 20_000}


def load(data):
    project, problems = examine(
        ["-"], stdin=data, environ=ENVIRON, cwd="/nonexistent", project_name="fuzz"
    )
    report = lint(project, problems)
    for problem in report.problems:
        render_problem(problem, "some line")
    if project is not None and not any(p.severity == "error" for p in problems):
        render(project.model)


def source(rng, texts):
    load(fuzz_inputs.mutated(rng, texts))


def grown(rng, texts):
    load(fuzz_inputs.grown(rng))


def noise(rng):
    return "".join(
        rng.choice((*fuzz_inputs.TOKENS, *fuzz_inputs.WORDS)) for _ in range(rng.randrange(1, 12))
    )


def templates(rng, texts):
    text = noise(rng)
    placeholders(text)
    try:
        Substitution(Environment(ENVIRON)).text(text)
    except TemplateError:
        return


def env(rng, texts):
    text = "\n".join(
        rng.choice(("", "export ", "A=", "A: ", "# ", "'", '"')) + noise(rng)
        for _ in range(rng.randrange(1, 6))
    )
    try:
        EnvFile(text, ENVIRON.get, {})
    except EnvFileError:
        return


def short(rng, texts):
    text = rng.choice(
        (noise(rng), "".join(rng.choice("0123456789.:-/hmskgbudwt ") for _ in "x" * 9))
    )
    for parse in (
        *(units.parse_duration, units.parse_size, units.parse_int, units.parse_float),
        *(units.parse_bool, units.split_words),
    ):
        try:
            parse(text)
        except ValueError:
            continue
    values.duration_seconds(text)
    values.size_bytes(text)
    values.octal(text)
    quoted = text.encode("utf-8", "replace").hex()  # as YAML text: any character may be inside
    escaped = "".join(f"\\x{quoted[at : at + 2]}" for at in range(0, len(quoted), 2))
    load(
        f'services: {{web: {{image: "x:1", ports: ["{escaped}"], volumes: ["{escaped}"], '
        f'stop_grace_period: "{escaped}", mem_limit: "{escaped}", tmpfs: "{escaped}"}}}}'.encode()
    )


KINDS = {"source": source, "grown": grown, "templates": templates, "env": env, "short": short}


def attack(kind, rounds, seed):
    """Try many inputs of a kind; every one can be made again from its number."""
    texts = fuzz_inputs.seeds()
    for number in range(rounds):
        least = SECOND
        for _ in range(3):  # others on the machine make an input dearer, never cheaper
            rng = random.Random(f"{seed}/{kind}/{number}")
            began = time.thread_time()
            try:
                KINDS[kind](rng, texts)
            except Exception as error:
                raise AssertionError(f"input {seed}/{kind}/{number}: {error!r}") from error
            least = time.thread_time() - began
            if least < SECOND:
                break
        assert least < SECOND, f"input {seed}/{kind}/{number} took {least:.2f} s"


@pytest.mark.parametrize("kind", KINDS)
def test_a_few(kind):
    attack(kind, 150, SEED)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many(kind):
    """In a process of its own, which may take 256 MiB more than it begins with."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.specs.test_fuzz", kind, str(ROUNDS[kind]), str(SEED)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_slow_lane_is_large_enough():
    assert sum(ROUNDS.values()) >= 100_000


if __name__ == "__main__":
    load(b"services: {web: {image: x}}")  # import everything first
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    attack(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
