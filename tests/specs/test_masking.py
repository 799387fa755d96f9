"""What of ours shows an environment hides what its names call secret, and nothing else."""

from __future__ import annotations

import json
import logging

import pytest

from specs.kit import masking
from specs.kit.log import JsonFormatter
from specs.stack import TaskSpec

CANARY = "hunter2"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("POSTGRES_PASSWORD", True),
        ("pgpassword", True),
        ("API_TOKEN", True),
        ("tokens", True),
        ("client_secret", True),
        ("SECRET_KEY_BASE", True),
        ("Aws_Access_Key_Id", True),
        ("MONKEY", True),  # by the name alone: rather once too often
        ("POSTGRES_USER", False),
        ("PASSWD", False),
        ("DATABASE_URL", False),
        ("PATH", False),
        ("", False),
    ],
)
def test_the_name_decides(name, secret):
    assert masking.is_secret(name) is secret
    assert masking.value(name, CANARY) == (masking.HIDDEN if secret else CANARY)
    assert masking.value(name, "") == "", "law: that there is none is no secret"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"DB_PASSWORD={CANARY}", "DB_PASSWORD=***"),
        (f"A=1 db_password={CANARY} B=2", "A=1 db_password=*** B=2"),
        (f"['DB_PASSWORD={CANARY} {CANARY}', 'B=1']", "['DB_PASSWORD=***', 'B=1']"),
        (f'{{"API_TOKEN": "{CANARY}\\" {CANARY}", "A": "b"}}', '{"API_TOKEN": "***", "A": "b"}'),
        (f"env={{'API_TOKEN': '{CANARY}', 'X': 'y'}}", "env={'API_TOKEN': '***', 'X': 'y'}"),
        (f"{{'X': 'y', 'API_TOKEN': '{CANARY} and cut", "{'X': 'y', 'API_TOKEN': '***'"),
        (f"'PASSWORD': {CANARY}, 'A': 1", "'PASSWORD': ***, 'A': 1"),
        (f"      POSTGRES_PASSWORD: {CANARY}", "      POSTGRES_PASSWORD: ***"),
        (f"      - API_TOKEN={CANARY}", "      - API_TOKEN=***"),
        (f"sh -c \"export A_KEY='{CANARY} x'; run\"", 'sh -c "export A_KEY=***; run"'),
        (f"redis-cli --password={CANARY} ping", "redis-cli --password=*** ping"),
        (f"curl http://x/?token={CANARY}", "curl http://x/?token=***"),
        (f"A_SECRET='{CANARY}\n{CANARY}' end", "A_SECRET=*** end"),
        # What is no value of a variable stays.
        ("the cluster key: put it back", "the cluster key: put it back"),
        ("sshd there accepts no keys", "sshd there accepts no keys"),
        ("secrets: [a, b]", "secrets: [a, b]"),
        ('{"keys": {"a": 1}}', '{"keys": {"a": 1}}'),
        ("DB_PASSWORD=", "DB_PASSWORD="),
        ("'DB_PASSWORD': ''", "'DB_PASSWORD': ''"),
        (f"USER={CANARY}", f"USER={CANARY}"),
        ("exit 1", "exit 1"),
    ],
)  # fmt: skip
def test_texts_hide_values_and_keep_the_rest(said, shown):
    assert masking.text(said) == shown
    assert masking.text(shown) == shown, "law: twice is once"


def test_a_long_text_costs_its_length():
    for odd in ("a" * 200_000 + "key", "KEY=" * 50_000, "'key" * 50_000, "'A=\\" * 50_000 + "key"):
        masking.text(odd)  # the square of it would take minutes: the suite's own deadline tells


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (("serve", "--db-password", CANARY, "-v"), "serve --db-password *** -v"),
        (("serve", f"--db-password={CANARY}"), "serve --db-password=***"),
        (("env", f"API_TOKEN={CANARY}", "run"), "env API_TOKEN=*** run"),
        (("sh", "-c", f"PGPASSWORD={CANARY} psql"), "sh -c PGPASSWORD=*** psql"),
        (("serve", "--token", "--verbose"), "serve --token --verbose"),
        (("serve", "key", CANARY), f"serve key {CANARY}"),
    ],
)
def test_commands_hide_the_values_of_their_options(command, shown):
    assert " ".join(masking.words(command)) == shown


def test_data_is_hidden_by_name_at_any_depth():
    found = masking.data({"a": [{"API_KEY": CANARY, "n": 1}], "t": (f"A_TOKEN={CANARY}",)})
    assert found == {"a": [{"API_KEY": "***", "n": 1}], "t": ["A_TOKEN=***"]}
    assert masking.environment({"A_KEY": CANARY, "B": "b"}) == {"A_KEY": "***", "B": "b"}


def test_no_line_of_a_daemons_log_shows_a_secret_value():
    spec = TaskSpec(image="i", environment={"DB_PASSWORD": CANARY, "MODE": "fast"})
    try:
        TaskSpec.model_validate({"environment": {"DB_PASSWORD": CANARY}, "colour": 1})
    except ValueError as error:
        trouble = (type(error), error, error.__traceback__)
    record = logging.makeLogRecord(
        {
            "msg": "cannot run %s",
            "args": (f"DB_PASSWORD={CANARY}",),
            "name": "agent",
            "exc_info": trouble,
            "key": "/tasks/shop/t1",
            "spec": spec,
            "environment": spec.environment,
        }
    )
    line = JsonFormatter().format(record)
    assert CANARY not in line
    found = json.loads(line)
    assert found["message"] == "cannot run DB_PASSWORD=***"
    assert found["key"] == "/tasks/shop/t1", "law: our own names are no variables"
    assert found["environment"] == {"DB_PASSWORD": "***", "MODE": "fast"}
    assert "colour" in found["error"]
