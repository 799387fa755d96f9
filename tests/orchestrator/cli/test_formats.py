"""`--format` and `--filter` of every list: Docker's templates, what they mean, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.cli.errors import CliError
from orchestrator.cli.show import filters, formats

NOW = 1_800_000_000.0
ROW = {
    "id": "t1",
    "Name": "shop-web-1",
    "State": "running",
    "Image": "web:1",
    "Command": '"sleep 600"',
    "ExitCode": 0,
    "cpus": 1.5,
    "past": False,
    "labels": {"zone": "a", "com.shop.tier": "front"},
    "Publishers": [
        {"URL": "0.0.0.0", "PublishedPort": 8080, "TargetPort": 80},
        {"URL": "0.0.0.0", "PublishedPort": 8443, "TargetPort": 443},
    ],
    "Names": ["a", "b"],
}

PRINTS = {
    "{{.Name}}": "shop-web-1",
    "{{ .Name }}": "shop-web-1",
    r"{{.Name}}\t{{.State}}": "shop-web-1\trunning",
    r"{{.Name}}\n": "shop-web-1\n",
    "{{json .Names}}": '["a","b"]',
    "{{.Name | json}}": '"shop-web-1"',
    "{{upper .State}}": "RUNNING",
    "{{.State | upper | lower}}": "running",
    "{{title .State}}": "Running",
    '{{join .Names ", "}}': "a, b",
    '{{join (split .Image ":") "/"}}': "web/1",
    '{{index (split .Image ":") 1}}': "1",
    "{{truncate .Name 4}}": "shop",
    "[{{pad .State 1 2}}]": "[ running  ]",
    '{{printf "%-10s|%3d" .Name .ExitCode}}': "shop-web-1|  0",
    '{{printf "%q %v %.1f%%" .State .past .cpus}}': '"running" false 1.5%',
    "{{len .Publishers}}": "2",
    "{{.ExitCode}} {{.cpus}} {{.past}}": "0 1.5 false",
    "{{.Names}}": "[a b]",
    "{{.labels.zone}}": "a",
    "{{.labels.other}}": "<no value>",
    '{{.Label "com.shop.tier"}}|{{.Label "none"}}': "front|",
    '{{index .labels "com.shop.tier"}}': "front",
    "{{range .Names}}{{.}};{{end}}": "a;b;",
    "{{range $i, $n := .Names}}{{if $i}},{{end}}{{$n}}{{end}}": "a,b",
    "{{range .Publishers}}{{.PublishedPort}}:{{.TargetPort}} {{$.Name}} {{end}}": (
        "8080:80 shop-web-1 8443:443 shop-web-1 "
    ),
    "{{range $k, $v := .labels}}{{$k}}={{$v}} {{end}}": "com.shop.tier=front zone=a ",
    "{{range $p := .Publishers}}{{$p.TargetPort}} {{end}}": "80 443 ",
    '{{if eq .State "running"}}up{{else}}down{{end}}': "up",
    '{{if eq .State "exited" "running"}}one of them{{end}}': "one of them",
    "{{if .past}}old{{else if .Names}}new{{else}}none{{end}}": "new",
    '{{if and .Names (not .past) (ne .Name "x")}}yes{{end}}': "yes",
    "{{or .past .Name}}": "shop-web-1",
    "{{if gt (len .Names) 1}}many{{end}}": "many",
    "{{with .labels}}{{.zone}}{{end}}": "a",
    "{{with .past}}x{{else}}y{{end}}": "y",
    "{{- /* words */ -}} {{.Name}}": "shop-web-1",
    "a {{- .State -}} b": "arunningb",
    "{{`raw`}}{{print .State 1}}": "rawrunning1",
    '{{"\\u00e4"}}': "ä",
    "{{slice .Name 0 4}}": "shop",
}


def printed(text, row=ROW):
    return formats.Format(text).text([row], lambda: "TABLE")


@pytest.mark.parametrize("text", PRINTS)
def test_a_template_prints_what_go_prints(text):
    assert printed(text) == PRINTS[text]


REFUSED = {
    # template -> its column, and what is said of it
    "{{.Nme}}": (3, "there is no field .Nme; did you mean .Name?"),
    "{{.name}}": (3, "did you mean .Name?"),
    "{{.Name}} {{.Nothing.More}}": (13, "there is no field .Nothing"),
    "{{.Name": (1, "{{ without }}"),
    "{{}}": (1, "says nothing"),
    "{{uper .Name}}": (3, "there is no function uper"),
    '{{define "x"}}{{end}}': (3, "{{define}} is not known here"),
    "{{$x := .Name}}{{$x}}": (6, "variables can be set by range only"),
    "{{$x}}": (3, "there is no variable $x"),
    "{{if .Name}}": (13, "{{if}} has no {{end}}"),
    "{{end}}": (3, "{{end}} without a block"),
    "{{range .Name}}{{.}}{{end}}": (9, "range needs a list"),
    "{{.Name.First}}": (3, "has no fields"),
    "{{join .Name}}": (3, "join cannot be used with"),
    '{{join .Name ","}}': (3, "join needs a list"),
    "{{index .Names 7}}": (3, "index has nothing at 7"),
    '{{printf "%d" .Name}}': (3, "printf cannot print shop-web-1 with %d"),
    "{{.Name | }}": (3, "something is missing"),
    "{{(.Name}}": (3, "( without )"),
    "{{.Name ; .ID}}": (9, "';' makes no sense here"),
    "{{lt .Name 1}}": (3, "lt cannot compare"),
    "jsn": (None, "--format 'jsn' is none"),
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_template_that_makes_no_sense_is_refused_by_its_column(text):
    column, words = REFUSED[text]
    with pytest.raises(CliError) as refused:
        printed(text)
    assert words in str(refused.value)
    assert refused.value.code == 2
    assert f"column {column} of" in str(refused.value) or column is None


def test_a_table_of_a_template_has_docker_s_headings():
    text = r'table {{.Name}}\t{{upper .State}}\t{{.Label "com.shop.tier"}}\t{{.CreatedAt}}'
    assert printed(text, {**ROW, "CreatedAt": "now"}) == (
        "NAME         STATE     TIER    CREATED AT\nshop-web-1   RUNNING   front   now"
    )
    pairs = "table {{range .Publishers}}{{.PublishedPort}} {{end}}"
    assert printed(pairs) == "PUBLISHED PORT\n8080 8443"
    assert formats.Format("table {{.CPUPerc}}\\t{{.PIDs}}").text([], str) == "CPU %   PIDS"


def test_of_no_rows_nothing_is_printed_and_one_row_may_lack_what_another_has():
    assert formats.Format("{{.Name}}").text([], str) == ""
    both = [{"Name": "a", "reason": "late"}, {"Name": "b"}]
    assert formats.Format("{{.Name}} {{.reason}}").text(both, str) == "a late\nb "


SAFE = {
    "{{.Name}}": "?]0;x?",
    "{{.labels}}": "map[?k:?v]",
    "{{.labels.a}}": "<no value>",
    "{{range $k, $v := .labels}}{{$k}}={{$v}}{{end}}": "?k=?v",
    '{{index .Names 0}}{{join .Names ","}}': "?1?1,b",
    "{{.Names}}{{range .Names}}{{.}}{{end}}": "[?1 b]?1b",
    "{{json .labels}}{{.Names | json}}": '{"?k":"?v"}["?1","b"]',
    "{{(index .deep 0).one}}{{range .deep}}{{.one}}{{end}}": "[?]" * 2,
    '{{index . "Name"}}{{$.Name}}{{with .labels}}{{.}}{{end}}': "?]0;x?" * 2 + "map[?k:?v]",
    '{{range $k, $v := .}}{{if eq $k "Name"}}{{$v}}{{end}}{{end}}': "?]0;x?",
    '{{.Label "l"}}{{printf "%v" .labels}}{{println .Names}}': "map[?k:?v][?1 b]\n",
}


@pytest.mark.parametrize("text", SAFE)
def test_what_a_row_says_never_reaches_the_terminal_as_a_command(text):
    row = {
        "Name": "\x1b]0;x\x07",
        "labels": {"\x9bk": "\x1bv"},
        "Names": ["\x9b1", "b"],
        "deep": [{"one": ["\x1b"]}],
    }
    assert printed(text, row) == SAFE[text].replace("?", "\ufffd")


def test_the_whole_row_as_json_is_what_it_is():
    row = {"Name": "two\nlines", "labels": {"a": "\t"}}
    for text in ("{{json .}}", "{{. | json}}", "{{json $}}"):
        assert json.loads(printed(text, row)) == row


FACTS = {
    "name": "shop-web-1",
    "id": "t42",
    "status": frozenset({"running", "up"}),
    "node": "alpha",
    "label": {"zone": "a", "tier": "front"},
}


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ([], True),
        (["name=web"], True),
        (["name=^web"], False),
        (["name=^shop-.*-1$"], True),
        (["id=t4"], True),
        (["id=42"], False),
        (["status=running"], True),
        (["status=exited"], False),
        (["status=exited", "status=running"], True),
        (["status=running", "node=beta"], False),
        (["label=zone"], True),
        (["label=zone=b"], False),
        (["label=zone=a", "label=tier=front"], True),
        (["label=zone=a", "label=gone"], False),
    ],
)
def test_words_of_a_key_are_one_of_labels_are_all(words, kept):
    assert filters.keeps(filters.parse(words, tuple(FACTS)), FACTS) is kept


@pytest.mark.parametrize(
    ("word", "says"),
    [("web", "not KEY=VALUE"), ("nam=web", "one of name"), ("name=(", "name=(")],
)
def test_a_filter_that_means_nothing_is_refused(word, says):
    with pytest.raises(CliError) as refused:
        filters.parse([word], tuple(FACTS))
    assert says in f"{refused.value} {refused.value.hint}"
    assert refused.value.code == 2


# The verbs


def task(name, **more):
    return {
        "id": f"t-{name}",
        "name": f"shop-{name}",
        "service": name.partition("-")[0],
        "image": "web:1",
        "node": "alpha",
        "state": "running",
        "ready": True,
        "health": "healthy",
        "created_at": NOW - 180,
        "started_at": NOW - 150,
        "ports": ["0.0.0.0:8080->80/tcp"],
        "labels": {"tier": "front"},
        "networks": ["shop_default"],
        "network_ids": ["n1ngky823np1gq"],
        "mounts": ["data", "/srv"],
        **more,
    }


TASKS = [
    task("web-1"),
    task("web-2", node="beta", paused=True),
    task("db-1", labels={}, health="none", mounts=[]),
    task("job-1", state="failed", exit_code=3, finished_at=NOW - 5, labels={}),
]


@pytest.fixture
def shop(fake, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: NOW)
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": TASKS})
    return fake


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--format", "{{.Name}}"], "shop-db-1\nshop-job-1\nshop-web-1\nshop-web-2\n"),
        (["--format", "{{.Service}}/{{.Node}}", "web"], "web/alpha\nweb/beta\n"),
        (["--filter", "status=running", "-q"], "t-db-1\nt-web-1\n"),
        (["--filter", "status=paused", "--format", "{{.Status}}"], "Up 2 min (Paused)\n"),
        (["--status", "dead", "--format", "{{.ExitCode}}"], "3\n"),
        (["--filter", "exited=3", "-q"], "t-job-1\n"),
        (["--filter", "label=tier=front", "--services"], "web\n"),
        (["--filter", "node=beta", "--filter", "name=web", "-q"], "t-web-2\n"),
        (["--filter", "network=shop_default", "--filter", "service=db", "-q"], "t-db-1\n"),
        (["--filter", "network=n1ngky823np1gq", "--filter", "service=db", "-q"], "t-db-1\n"),
        (["--filter", "network=other_default", "-q"], ""),
        (
            ["--filter", "volume=data", "--filter", "ancestor=web", "-q"],
            "t-web-1\nt-web-2\nt-job-1\n",
        ),
        (
            ["--filter", "name=web-1", "--format", "{{.Labels}} {{.Mounts}} {{.LocalVolumes}}"],
            "tier=front data,/srv 1\n",
        ),
        (
            ["--filter", "name=web-1", "--format", "{{.Ports}} {{.RunningFor}} {{.Networks}}"],
            "0.0.0.0:8080->80/tcp 3 min ago shop_default\n",
        ),
        (
            ["--filter", "name=db", "--format", "table {{.ID}}\\t{{.Health}}"],
            "ID       HEALTH\nt-db-1\n",
        ),
    ],
)
def test_ps(shop, corral, argv, expected):
    done = corral("-p", "shop", "ps", *argv)
    assert (done.code, sorted(done.out.split())) == (0, sorted(expected.split())), done.err


@pytest.mark.parametrize(
    "argv",
    [
        ["ps", "--format", "{{.Nme"],
        ["ls", "--format", "jsn"],
        ["node", "ls", "--format", "{{define}}"],
        ["ps", "--filter", "colour=red"],
        ["stats", "--format", "{{nope .Name}}"],
        ["top", "--format", "{{.X"],
    ],
    ids=" ".join,
)
def test_nonsense_is_refused_before_anything_is_asked(fake, corral, argv):
    assert corral("-p", "shop", *argv).code == 2
    assert not fake.requests


@pytest.mark.parametrize(
    ("argv", "out"),
    [
        (["ls", "-f", "name=sh"], "shop\n"), (["ls", "-f", "name=no"], ""),
        (["ps", "-f", "status=exited"], "t-job-1\n"), (["ps", "-f", "name=db"], "t-db-1\n"),
        (["node", "ls", "-f", "status=ready"], "alpha\n"), (["node", "ls", "-f", "name=b"], ""),
    ],
)  # fmt: skip
def test_behind_a_list_f_is_docker_s_filter(shop, corral, argv, out):
    shop.on("GET", "/v1/stacks", {"stacks": [{"name": "shop", "status": "deployed"}]})
    shop.on("GET", "/v1/nodes", {"nodes": [{"id": "n", "name": "alpha", "status": "ready"}]})
    done = corral("-p", "shop", *argv, "-q")
    assert (done.code, done.out) == (0, out), done.err


def test_a_compose_file_behind_a_list_is_told_where_it_stands(fake, corral):
    done = corral("ps", "-f", "compose.yaml")
    assert done.code == 2
    assert "stands before the command: corral -f compose.yaml ..." in done.err


def test_ls_and_node_ls_have_docker_s_keys_beside_ours(fake, corral):
    shop = {
        "name": "shop",
        "status": "deployed",
        "tasks": "3/3",
        "containers": {"running": 2, "exited": 1},
        "config_files": ["/srv/a.yaml", "/srv/b.yaml"],
    }
    lost = {"name": "lost", "status": "unknown", "tasks": "?/1", "containers": {}}
    fake.on("GET", "/v1/stacks", {"stacks": [shop, lost]})
    form = "{{.Name}}: {{.Status}}; {{.status}}; {{.ConfigFiles}}"
    assert corral("ls", "--format", form).out == (
        "lost: unknown; unknown; \nshop: exited(1), running(2); deployed; /srv/a.yaml,/srv/b.yaml\n"
    )
    assert corral("ls", "--filter", "name=blog", "--format", "{{.Name}}").out == ""
    node = {"id": "n1", "name": "alpha", "status": "ready", "availability": "active", "labels": {}}
    fake.on("GET", "/v1/nodes", {"nodes": [node]})
    assert corral("node", "ls", "--format", "{{.Hostname}} {{.Status}}").out == "alpha Ready\n"
    assert (
        json.loads(corral("node", "ls", "--format", "{{json .}}").out)["Availability"] == "Active"
    )
    assert corral("node", "ls", "--filter", "status=down", "-q").out == ""
    fake.on("GET", "/v1/nodes/alpha", {**node, "facts": {"kernel": "6.1"}})
    shown = corral("node", "inspect", "-f", "{{.Hostname}} {{.facts.kernel}}", "alpha").out
    assert shown == "alpha 6.1\n"
    assert corral("node", "inspect", "alpha").out.startswith("alpha  ready\n")
    assert json.loads(corral("node", "inspect", "--format", "json", "alpha").out)["ID"] == "n1"


TASK = {"id": "t1", "name": "shop-web-1", "service": "web", "state": "running", "labels": {}}
OBJECT = {
    "id": "n",
    "name": "net",
    "driver": "overlay",
    "labels": {},
    "options": {},
    "used_by": [],
    "internal": False,
    "attachable": True,
    "subnets": ["10.210.0.0/26"],
    "stack": "",
    "node": "",
    "tasks": {"shop-web-1": "10.210.0.2"},
    "services": [],
    "size": 3,
}


@pytest.mark.parametrize(
    ("path", "answer", "words"),
    [
        ("/v1/stacks", {"stacks": [{"name": "shop", "status": "running"}]}, "ls"),
        ("/v1/stacks/shop/tasks", {"tasks": [TASK]}, "-p shop ps -a"),
        ("/v1/stacks/shop/tasks", {"tasks": [TASK]}, "-p shop images"),
        ("/v1/nodes", {"nodes": [{"id": "n1", "name": "a", "status": "ready"}]}, "node ls"),
        ("/v1/nodes/a", {"id": "n1", "name": "a", "status": "ready"}, "node inspect a"),
        ("/v1/networks", {"networks": [OBJECT]}, "network ls"),
        ("/v1/networks/net", OBJECT, "network inspect net"),
        ("/v1/volumes", {"volumes": [OBJECT]}, "volume ls"),
        ("/v1/volumes/net", OBJECT, "volume inspect net"),
        ("/v1/secrets", {"contents": [OBJECT]}, "secret ls"),
        ("/v1/secrets/net", OBJECT, "secret inspect net"),
        ("/v1/configs", {"contents": [OBJECT]}, "config ls"),
    ],
)
@pytest.mark.parametrize("form", ["json", "{{json .}}"])
def test_no_two_keys_of_json_differ_by_case_only(fake, corral, path, answer, words, form):
    """Readers that take no notice of case (Go, PowerShell) refuse such, or take either."""
    fake.on("GET", "/v1/stacks/shop", {"name": "shop", "services": [{"name": "web"}]})
    fake.on("GET", path, answer)
    done = corral(*words.split(), "--format", form)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    (row,) = found if isinstance(found, list) else [found]
    keys = [key.lower() for key in row]
    assert sorted(set(keys)) == sorted(keys)
    assert row.get("corral", row), "what Docker's keys hide of ours is in a place of its own"


def test_a_template_loads_nothing_heavy():
    program = (
        "import sys\nfrom orchestrator.cli.show import formats, template\n"
        "formats.Format('{{.Name}}').text([{'Name': 'a'}], str)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", program],
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    heavy = {"asyncio", "pydantic", "yaml", "typing", "dataclasses", "difflib", "inspect"}
    assert not heavy & set(done.stdout.split())
