"""`history` and `diff` on the terminal, as they look: golden."""

from __future__ import annotations

import json

import pytest
from fake import Lines

from orchestrator.cli.commands import diff, history, rollback

NOW = 1_800_000_000.0
BY = {"host": "laptop", "message": "new prices", "branch": "main", "commit": "0123456789abcdef"}
ROWS = [
    {
        "stack": "shop",
        "number": 4,
        "state": "failed",
        "reason": "update of web failed: exit code 1\nlast words",
        "created_at": NOW - 60,
        "who": "anna@laptop",
        "by": {**BY, "dirty": True},
        "changed": "web: image: web:2 -> web:3",
    },
    {
        "stack": "shop",
        "number": 3,
        "state": "rolled_back",
        "reason": "rolled back to release 2",
        "created_at": NOW - 3600,
        "who": "",
        "by": {"host": "", "message": "\x1b[31mred"},
        "changed": "",
    },
    {
        "stack": "shop",
        "number": 2,
        "state": "deployed",
        "running": True,
        "reason": "",
        "created_at": NOW - 7200,
        "who": "root (bob)@ci",
        "by": {"host": "ci", "commit": "fedcba9876543210"},
        "changed": "new: web",
    },
]
TABLE = """\
    RELEASE   STATE         WHEN        WHO             CHANGED                                                         MESSAGE
    4         failed        1 min ago   anna@laptop     web: image: web:2 -> web:3: update of web failed: exit code 1   new prices (main 01234567+)
    3         rolled back   1 h ago                     rolled back to release 2                                        \N{REPLACEMENT CHARACTER}[31mred
*   2         deployed      2 h ago     root (bob)@ci   new: web                                                        fedcba98"""  # noqa: E501 - as it is printed


def test_the_table():
    assert history.as_table(ROWS, NOW) == TABLE


CHANGES = [
    ("services", "cache", "", "+", "", "redis:7"),
    ("services", "web", "image", "~", "web (0123456789ab)", "web (ba9876543210)"),
    ("services", "web", "environment.DB_PASSWORD", "~", "***", "***"),
    ("services", "web", "ports.8080:80", "+", "", "8080:80"),
    ("services", "old", "", "-", "busybox", ""),
    ("networks", "back", "internal", "~", "no", "yes"),
    ("secrets", "pw", "version", "~", "s1m8kq3x9f0a", "s1m8kr00b112"),
    ("volumes", "shop_data", "", "-", "shop_data", ""),
    ("stack", "shop", "x-corral.deadline", "~", "10 min", "5 min"),
]
NAMES = ("section", "name", "key", "sign", "old", "new")
DIFF = {
    "stack": "shop",
    "before": 3,
    "after": 5,
    "changes": [dict(zip(NAMES, change, strict=True)) for change in CHANGES],
}
TEXT = """\
shop: release 3 -> 5
+ service cache (redis:7)
~ service web
    ~ image: web (0123456789ab) -> web (ba9876543210)
    ~ environment.DB_PASSWORD: another value
    + ports.8080:80: 8080:80
- service old (busybox)
~ network back
    ~ internal: no -> yes
~ secret pw
    ~ version: s1m8kq3x9f0a -> s1m8kr00b112
- volume shop_data
    ~ x-corral.deadline: 10 min -> 5 min"""


def test_the_differences():
    assert diff.as_text(DIFF) == TEXT
    assert diff.as_text({**DIFF, "changes": []}) == "releases 3 and 5 of shop ask for the same"
    assert diff.as_text(DIFF, colour=True).startswith("shop: release 3 -> 5\n\x1b[32m+ service")


def test_the_verbs_ask_for_what_was_typed(corral, fake):
    fake.on("GET", "/v1/stacks/shop/history", {"releases": ROWS})
    fake.on("GET", "/v1/stacks/shop/diff", DIFF)
    done = corral("-p", "shop", "history", "web", "-n", "3", "-q")
    assert (done.code, done.out) == (0, "4\n3\n2\n")
    assert fake.requests[-1].query == {"service": ["web"], "limit": ["3"]}
    done = corral("-p", "shop", "history", "--format", "json")
    assert [json.loads(line)["number"] for line in done.out.splitlines()] == [4, 3, 2]
    done = corral("-p", "shop", "diff", "#3", "v5")
    assert (done.code, done.out) == (0, TEXT + "\n")
    assert fake.requests[-1].query == {"before": ["3"], "after": ["5"]}
    done = corral("-p", "shop", "diff", "--format", "json", "3")
    assert json.loads(done.out) == DIFF


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("history", "-n", "0"), "-n 0 shows none"),
        (("diff", "1", "2", "3"), "diff compares two releases, not 3"),
        (("diff", "web"), "'web' is no number of a release"),
        (("diff", "0"), "'0' is no number of a release"),
    ],
)
def test_what_makes_no_sense_is_refused(corral, fake, words, said):
    done = corral("-p", "shop", *words)
    assert done.code == 2
    assert said in done.err
    assert not fake.asked("GET", "/v1/stacks/.*")


ROLLED_BACK = {"stack": "shop", "number": 6, "state": "pending", "to": 3, "changes": []}
BACK = """\
shop: back to release 3, as release 6
  ~ service web
      ~ image: web (0123456789ab) -> web (ba9876543210)
  - volume shop_data
  Data in volumes is not taken back; those no service has any more stay."""


def test_a_rollback_says_what_it_brings_back():
    changes = [DIFF["changes"][1], DIFF["changes"][7]]
    answer = {**ROLLED_BACK, "changes": changes}
    assert "\n".join(rollback.summary(answer, "shop", ())) == BACK
    assert rollback.summary({**answer, "unchanged": True}, "shop", ["web"]) == [
        "shop: web of release 3 runs already, as release 6; nothing to change"
    ]
    assert rollback.summary({**answer, "joined": True}, "shop", ()) == [
        "shop: going back to release 3 is under way, as release 6"
    ]
    many = rollback.summary({**answer, "changes": changes[:1] * 50}, "shop", ())
    assert many[-1] == "  and 10 more: corral diff 3"


@pytest.mark.parametrize(
    ("words", "to", "services"),
    [
        ((), None, []),
        (("12",), 12, []),
        (("#12",), 12, []),
        (("web",), None, ["web"]),
        (("web", "db", "--to", "7"), 7, ["web", "db"]),
        (("--to", "7"), 7, []),
    ],
)
def test_what_a_rollback_asks_for(corral, fake, words, to, services):
    fake.on("POST", "/v1/stacks/shop/rollback", ROLLED_BACK)
    done = corral("-p", "shop", "rollback", "-d", "-m", "wrong prices", *words)
    assert done.code == 0, done.err
    (request,) = fake.asked("POST", "/v1/stacks/shop/rollback")
    assert (request.body["to"], request.body["services"]) == (to, services)
    assert request.body["by"]["message"] == "wrong prices"


def test_a_rollback_is_followed_to_its_end(corral, fake):
    fake.on("POST", "/v1/stacks/shop/rollback", ROLLED_BACK)
    end = {"kind": "end", "ok": False, "message": "image web:1 is on no node", "release": 6}
    fake.on("GET", "/v1/stacks/shop/progress", Lines([end]))
    done = corral("-p", "shop", "rollback")
    assert done.code == 1
    assert "image web:1 is on no node" in done.err
    done = corral("-p", "shop", "rollback", "--dry-run")
    assert (done.code, done.out) == (0, "shop: back to release 3, as release 6\n")


@pytest.mark.parametrize(
    "words", [("web", "3"), ("3", "--to", "4"), ("--to", "web"), ("--dry-run", "-d")]
)
def test_a_rollback_that_makes_no_sense_is_refused(corral, fake, words):
    assert corral("-p", "shop", "rollback", *words).code == 2
    assert not fake.asked("POST", "/v1/stacks/.*")
