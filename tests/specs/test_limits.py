"""Numbers, lengths and first words that nothing can be started with: refused at their place."""

from __future__ import annotations

import pytest

from specs import kernel
from specs.compile import limits
from specs.compile.limits import NUMBERS
from specs.compile.stack import compile_stack
from specs.compile.verdicts import Verdicts
from specs.compose.language.schema import PROJECT
from specs.compose.load import examine
from specs.findings import Findings
from specs.problems import SpecError


def refusals(line, tmp_path):
    """Return what loading or compiling a service of this one line refuses."""
    file = tmp_path / "c.yaml"
    file.write_text(
        f"name: app\nservices:\n  a:\n    image: x\n    {line}\nconfigs: {{s: {{content: x}}}}\n"
    )
    project, found = examine([str(file)], environ={}, cwd=str(tmp_path))
    found = [problem for problem in found if problem.severity == "error"]
    if project is not None and not found:
        try:
            compile_stack(project.model, project.origins, "app", str(tmp_path))
        except SpecError as refused:
            found = [problem for problem in refused.problems if problem.severity == "error"]
    return found


def resource(group, key, value):
    return f"deploy: {{{{resources: {{{{{group}: {{{{{key}: {value}}}}}}}}}}}}}"


# Each number of a service: what passes, what does not (with a word of why). What Docker's own
# daemon or the kernel refuses is refused; what they take for "none" or "unlimited" passes.
TABLE = {
    "pids_limit: {}": (
        ("1", "0", "-1", "4194304", '"7"'),
        {
            "-2": "negative",
            "-5": "negative",
            "4194305": "too much",
            "1e30": "too",
            '"1.5"': "whole",
        },
    ),
    resource("limits", "pids", "{}"): (
        ("1", "0", "-1", "4194304"),
        {"-5": "negative", "1.5": "whole number", "4194305": "too much", ".nan": "not a number"},
    ),
    "cpus: {}": (
        ("0.01", "0", "1.5", '"2"', "8192"),
        {
            "-1": "negative",
            "0.001": "too little",
            "9000": "too much",
            ".nan": "not a number",
            ".inf": "infinity",
            '"1e400"': "too large",
            "1e39": "too large",
        },
    ),
    resource("limits", "cpus", "{}"): (
        ('"0.5"', "0"),
        {'"-1"': "negative", '"0.001"': "too little", '"NaN"': "not a number", '"9e9"': "too much"},
    ),
    resource("reservations", "cpus", "{}"): (('"0.001"', '"2"'), {'"-0.5"': "negative"}),
    "cpu_quota: {}": (
        ("1000", "0", "-1", "50000"),
        {"-2": "negative", "999": "too little", "900000000": "of a period is too much"},
    ),
    "cpu_period: {}": (("1000", "1000000", "0"), {"999": "too little", "1000001": "too much"}),
    "cpu_shares: {}": (("0", "2", "262144"), {"1": "too little", "-2": "negative"}),
    "cpu_rt_runtime: {}": (("0", "950000"), {"-3": "negative"}),
    "mem_limit: {}": (
        ("64m", '"64m"', "0", "-1"),
        {
            "-5": "negative",
            '"-5m"': "negative",
            "1e": "no unit of size",
            '"99999999999g"': "too large",
            ".nan": "not a number",
        },
    ),
    "mem_reservation: {}": (("64m", "-1"), {"-5": "negative", "-64m": "negative"}),
    "memswap_limit: {}": (("-1",), {"-5": "negative"}),
    "mem_swappiness: {}": (("0", "100", "-1"), {"101": "too much", "-2": "negative"}),
    resource("limits", "memory", "{}"): (("64M", '"-1"'), {"-64M": "negative", '"-5"': "negative"}),
    resource("reservations", "memory", "{}"): (("8m",), {"-8m": "negative", '"-8"': "negative"}),
    "shm_size: {}": (("64m", "0"), {"-5": "negative", "-1": "negative", '"-1m"': "negative"}),
    "ulimits: {{nofile: {}}}": (
        ("0", "10", "-1", "{soft: 5, hard: 5}", "{soft: 10, hard: -1}"),
        {
            "-2": "less than no limit",
            "{soft: 10, hard: 5}": "above the hard",
            "1.5": "must be",
            "{soft: -1, hard: 5}": "above the hard",
            "9223372036854775808": "too much",
        },
    ),
    "ulimits: {{{}: 5}}": (("core", "stack"), {"files": "is no ulimit", "nofiles": "is no ulimit"}),
    "oom_score_adj: {}": (
        ("-1000", "1000"),
        {"-1001": "at least", "1001": "at most", "0.5": "must"},
    ),
    "blkio_config: {{weight: {}}}": (
        ("10", "1000", "0"),
        {"9": "too little", "1001": "too much", "-5": "negative", "65535": "too much"},
    ),
    "blkio_config: {{device_read_bps: [{{path: /dev/x, rate: {}}}]}}": (
        ("10m", "1"),
        {"-5": "negative"},
    ),
    "scale: {}": (("0", "3"), {"-1": "negative", "1.5": "whole"}),
    "deploy: {{replicas: {}}}": (("0",), {"-1": "negative", "0.5": "whole number"}),
    "deploy: {{placement: {{max_replicas_per_node: {}}}}}": (("0", "2"), {"-1": "negative"}),
    "deploy: {{update_config: {{parallelism: {}}}}}": (("0", "2"), {"-1": "negative"}),
    "deploy: {{update_config: {{max_failure_ratio: {}}}}}": (
        ("0", "1", "0.2"),
        {"-0.1": "negative", "1.5": "too much"},
    ),
    "deploy: {{restart_policy: {{max_attempts: {}}}}}": (("0", "3"), {"-1": "negative"}),
    "restart: {}": (
        ('"no"', "on-failure", '"on-failure:3"', '"on-failure:"', "unless-stopped"),
        {
            '"on-failure:-1"': "no number of attempts",
            '"on-failure:x"': "no number of attempts",
            '"always:3"': "takes no number",
            '"on-failure:1.5"': "no number of attempts",
        },
    ),
    "healthcheck: {{test: x, retries: {}}}": (("0", "3"), {"-1": "negative"}),
    "healthcheck: {{test: x, interval: {}}}": (
        ("1ms", "0s", "30s"),
        {"1ns": "too little", "999us": "too little", "-5s": "negative"},
    ),
    "healthcheck: {{test: x, start_interval: {}}}": (("5s",), {"1us": "too little"}),
    "healthcheck: {{test: {}}}": (
        ("[CMD, a]", "[CMD-SHELL, a]", "[NONE]", "a", "[]"),
        {
            "[CMD]": "without a program",
            '[CMD, ""]': "without a program",
            "[CMD-SHELL]": "without a command",
        },
    ),
    "logging: {{options: {{max-size: {}}}}}": (
        ("10m", '"-1"', '""'),
        {'"0"': "no size", '"-5"': "no size", "lots": "no size"},
    ),
    "logging: {{options: {{max-file: {}}}}}": (
        ('"1"', "3"),
        {'"0"': "no number of files", '"-1"': "no number of files", "many": "no number of files"},
    ),
    'tmpfs: ["/t:{}"]': (
        ("size=64m", "size=50%", "mode=1777", "ro", "size=64m,mode=0700"),
        {
            "size=-1": "negative",
            "size=lots": "no size",
            "mode=9": "no mode",
            "mode=17777": "no mode",
        },
    ),
    "volumes: [{{type: tmpfs, target: /t, tmpfs: {{size: {}}}}}]": (
        ("64m", "0"),
        {"-1": "at least 0", '"-5"': "negative"},
    ),
    "configs: [{{source: s, mode: {}}}]": (('"0440"', "0o1777"), {'"77777"': "no mode"}),
    "configs: [{{source: s, uid: {}}}]": (('"0"', '"1000"'), {'"4294967295"': "too much"}),
    "user: {}": (('"2147483647"', "root"), {'"2147483648"': "end at", '"0:99999999999"': "end at"}),
    "stop_signal: {}": (("SIGTERM", "SIGRTMIN+3", '"15"'), {"SIGFOO": "no signal", '"99"': "no"}),
    "stop_grace_period: {}": (("0s", "1h"), {"-5s": "not a duration"}),
    "cap_add: [{}]": (("NET_ADMIN", "ALL", "cap_chown"), {"ROOT": "no capability"}),
    "sysctls: {{{}: 1}}": (
        ("net.core.somaxconn", "kernel.msgmax"),
        {"vm.max_map_count": "the whole node", "kernel.panic": "the whole node"},
    ),
    "network_mode: host\n    sysctls: {{{}: 1}}": (
        ("kernel.msgmax",),
        {"net.core.somaxconn": "would change the node"},
    ),
    # what is run: the first word
    "entrypoint: {}": (
        ('""', "[]", '[""]', "[a]", '[a, ""]'),
        {'["", a]': "first word is empty"},
    ),
    "command: {}": (('""', "[]", '[""]', '["", a]', '[a, ""]'), {}),
    'entrypoint: [""]\n    command: {}': (
        ("[a]",),
        {'[""]': "first word", '["", a]': "first word"},
    ),
    "entrypoint: []\n    command: {}": (("a",), {'[""]': "first word is empty"}),
    "working_dir: {}": (("/", "/a"), {"a": "not an absolute path", "./a": "not an absolute path"}),
    # two things at one place
    "tmpfs: [/d]\n    volumes: [{}]": (
        ("/e", "/d/e", "/da"),
        {
            "/d": "already",
            "/d/": "already",
            "/e/../d": "already",
            '"//d"': "already",
            "/d/.": "already",
        },
    ),
    "volumes: [/d, {}]": (("/d/e", "/d", "/d/"), {}),
    "configs: [s]\n    volumes: [{}]": (("/t",), {"/s": "already mounted by", "/s/": "already"}),
}
CASES = [
    (line.format(value), why)
    for line, (fits, refused) in TABLE.items()
    for value, why in [*((value, "") for value in fits), *refused.items()]
]


@pytest.mark.parametrize(("line", "why"), CASES)
def test_what_a_service_can_be_started_with(line, why, tmp_path):
    found = refusals(line, tmp_path)
    assert bool(found) == bool(why), found
    if why:
        (problem,) = found[:1]
        assert why in problem.message
        assert problem.hint
        assert problem.position is not None
        assert problem.position.line in (5, 6)


def lacking(path):
    """Say whether the language has no such key."""
    shape = PROJECT
    for part in path.split("."):
        name = part.removesuffix("[]")
        shape = shape.values if name == "*" else (shape.fields or {}).get(name)
        if shape is not None and part.endswith("[]"):
            shape = shape.items
        if shape is None:
            return True
    return False


def test_every_number_is_one_of_the_language_and_says_what_to_write():
    assert [path for path in NUMBERS if lacking(path)] == []
    assert all(rule.hint and rule.low <= rule.high for rule in NUMBERS.values())


@pytest.mark.parametrize("value", [True, "x", "", None, [], 1e400, "nan", float("nan")])
@pytest.mark.parametrize("path", NUMBERS)
def test_what_comes_over_the_api_is_judged_or_left_and_never_raises(path, value):
    *holders, key = path.removeprefix("services.*.").split(".")
    service = {"image": "x"}
    place = service
    for holder in holders:
        inner = {}
        if holder.endswith("[]"):
            place[holder.removesuffix("[]")] = [inner]
        else:
            place[holder] = inner
        place = inner
    place[key] = value
    project = {"services": {"a": service}}
    limits.check(project, Verdicts(project, Findings({})))


# What one text, and all of them, may weigh: execve(2).
LONG = "l" * kernel.LONGEST_ARGUMENT
SEVERAL = {f"V{n}": "v" * 100_000 for n in range(30)}
WEIGHTS = {
    "a word": ({"command": ["a", LONG]}, "services.a.command[1]", "the kernel takes 131071"),
    "one byte less": ({"command": ["a", LONG[1:]]}, "", ""),
    "of many bytes each": (
        {"command": ["\N{SNOWMAN}" * 50_000]},
        "services.a.command[0]",
        "150000",
    ),
    "entrypoint": ({"entrypoint": ["a", LONG]}, "services.a.entrypoint[1]", "bytes in one text"),
    "a variable": ({"environment": {"A": LONG}}, "services.a.environment.A", "bytes in one text"),
    "its name counts": ({"environment": {"A": LONG[2:]}}, "services.a.environment.A", "131072"),
    "a probe": (
        {"healthcheck": {"test": ["CMD", LONG]}},
        "services.a.healthcheck.test[1]",
        "bytes",
    ),
    "all variables": (
        {"environment": SEVERAL},
        "services.a.environment",
        "gives a process 2097152",
    ),
    "with a larger stack": ({"environment": SEVERAL, "ulimits": {"stack": 16 << 20}}, "", ""),
    "without a limit": ({"environment": SEVERAL, "ulimits": {"stack": -1}}, "", ""),
    "a small stack": (
        {"environment": {"A": "a" * 100_000, "B": "b" * 100_000}, "ulimits": {"stack": 1}},
        *("services.a.environment", "gives a process 131072"),
    ),
    "words only": ({"command": ["c" * 100_000] * 30}, "services.a.command", "2097152"),
    "labels are no arguments": ({"labels": {"A": LONG}}, "", ""),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_what_execve_does_not_take_is_refused_by_place(case):
    service, place, why = WEIGHTS[case]
    try:
        compile_stack({"services": {"a": {"image": "x", **service}}}, {}, "app")
        found = []
    except SpecError as refused:
        found = [p for p in refused.problems if p.severity == "error"]
    assert [problem.path for problem in found] == [place] * bool(place)
    assert all(why in problem.message for problem in found)
