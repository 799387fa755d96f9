"""A whole day of a Compose user, on one host; the same table runs on three in ``multi/``.

`db` (health check, volume, secret) -> `migrate` (one-off) -> `app` (built, three replicas) ->
`web` (published port, config), and `cron` behind a profile.
"""

from __future__ import annotations

import pytest

from tests.e2e import day_files as files
from tests.e2e.day import Day, Step, objects, runs, serves, spread, table

pytestmark = pytest.mark.real

ALL = {"db": 1, "app": 3, "web": 1}
PS = ("NAME", "IMAGE", "COMMAND", "SERVICE", "NODE", "CREATED", "STATUS", "PORTS")

# Before anything runs: the file is looked at, and every command has an answer.
COFFEE = (
    Step("config -q", prints=""),
    Step("config --services", prints="app\ndb\nmigrate\nweb\n"),
    Step("config --images", prints="busybox\nshop/app:1\n"),
    Step("config --volumes", prints="data\n"),
    Step("config --profiles", prints="cron\n"),
    Step("--profile cron config --services", says=("^cron$",)),
    Step("config", says=("^name: shop$", 'published: "8080"', "monitor: 300ms", "replicas: 3")),
    Step("config --format json", says=('"COLOUR": "red"',), env={"COLOUR": "red"}),
    Step("config --hash app", says=("^app [0-9a-f]{64}$",)),
    Step("lint -q", says=("names no version.*3 times", "^0 errors, 1 warning$")),
    Step(
        "ps",
        says=("no stack shop",),
        then=(table("NAME", "IMAGE", "SERVICE", "NODE", "CREATED", "STATUS", "PORTS", rows=0),),
    ),
    Step("ls", then=(table("NAME", "STATUS", "RELEASE", "SERVICES", "TASKS", "REASON", rows=0),)),
    Step("down", says=("nothing to remove",)),
    Step("logs", 1, says=("no stack shop",)),
    Step("exec -T app true", 1, says=("no stack shop",)),
    Step("upp", 2, says=("did you mean `corral up`",)),
    Step("build", 2, says=("corral up -d --build",)),
    Step("attach web", 1, says=("there is no stack shop",)),
    Step("system prune", 2, says=("corral down -v",)),
    Step("stack deploy -c f shop", 2, says=("corral -f FILE -p STACK up -d",)),
    Step("ps --formt json", 2, says=("did you mean --format",)),
    Step("port web 80", 1, says=("no stack shop",)),
    Step("up --no-such-flag", 2, says=("--no-such-flag", "corral up --help")),
    Step("up -d nope", 1, says=("no such service: nope", "app, db, migrate, web")),
)

MORNING = (
    Step(
        "up -d",
        says=(
            "app build \\| STEP",
            "migrate: .*waits for db to be healthy",
            "app: .*waits for migrate to complete",
            "db-1 on .*healthy(.|\n)*migrate-1 on .*completed(.|\n)*app-1 on .*healthy(.|\n)*web-1",
            "release 1 done, 6/6 replicas",
        ),
        never=("warning",),
        touches="db app web",
        then=(runs(**ALL), serves("version 1 green shop-app-"), spread("app")),
    ),
    Step("up -d", says=("unchanged, release 1 runs", "migrate: completed"), never=("build \\|",)),
    Step("up --wait", says=("unchanged, release 1 runs",)),
    Step("plan", prints="nothing to do: shop runs as the file has it (release 1)\n"),
    Step(
        "plan --scale app=1", 3, says=("shop-app-3   from ", "Plan: 0 to create, 0 to replace, 2")
    ),
    Step("up --dry-run", says=("nothing to do",)),
    Step("ps", says=("0.0.0.0:8080->80/tcp",), never=("migrate",), then=(table(*PS, rows=5),)),
    Step("ps -a", says=("shop-migrate-1 .*completed \\(exit code 0\\)",)),
    Step("ps --format json", then=(objects("Name", "State", "Publishers", "corral", rows=5),)),
    Step("ps -q app", says=("^t\\w+\nt\\w+\nt\\w+$",)),
    # of an image's CMD
    Step("ps --no-trunc app", says=("/bin/sh -c mkdir -p /www; echo",)),
    Step("ps --services", prints="app\ndb\nweb\n"),
    Step("ps --status exited", says=("migrate",), never=("shop-app",)),
    Step("ps cron", 1, says=("no tasks of cron",)),
    Step("ps nope", 1, says=("no tasks of nope", "app, db, web")),
    Step("port web 80", prints="0.0.0.0:8080\n"),
    Step("inspect -f '{{.Name}} {{.State.Status}}' web", prints="/shop-web-1 running\n"),
    Step(
        "inspect -f '{{.State.Pid}} {{.HostConfig.RestartPolicy.Name}} {{json .Args}}"
        " {{range .Mounts}}{{.Destination}} {{end}}' db",
        says=('^[1-9]\\d* \\S+ \\[".+"] /.+',),
    ),
    Step("top app", says=("^app +1 .*\n(.|\n)*^app +3 ",)),
    Step("stats --no-stream", says=("shop-app-3 .*%.*iB / .*%",)),
    Step("pause app", says=("shop-app-1 paused", "app-2 paused", "app-3 paused")),
    Step("ps app", says=("\\(paused, healthy\\)",)),
    Step("unpause app", says=("shop-app-3 goes on",), then=(serves("version 1 green shop-app-"),)),
    Step("kill -s CONT app", says=("shop-app-2 CONT",)),
    Step("cp compose.yaml app:/tmp/copy", says=("app-1: copied", "app-2: copied", "app-3: copied")),
    Step("cp --index 3 app:/tmp/copy copied.yaml", says=("shop-app-3: copied",)),
    Step("cp app:/nope copied.yaml", 1, says=("there is no /nope in the container",)),
    Step("schedule ls", says=("^STACK +SERVICE +CRON +NEXT",)),
    Step("schedule run app", 1, says=("no schedule app in stack shop",)),
    Step("volumes", says=("^local +shop_data +\\S+$",)),
    Step("volume rm shop_data", 1, says=("in use by stack shop",)),
    Step("volume move shop_data --to nowhere", 1, says=("there is no node nowhere",)),
    Step("network ls", says=(" shop_default +overlay +\\S+ +shop +shop$",)),
    Step("config ls", says=("^ID +NAME +SIZE",)),
    Step("ls", says=("^shop +running +1 +4 +6/6$",)),
    Step("ls -q", prints="shop\n"),
    Step(
        "doctor",
        says=(
            "^ok +nodes: [13] of [13] are ready$",
            "^(warning|ok) +backups: (none was made|the newest is)",
        ),
    ),
    Step("metrics", says=('^corral_service_ready{stack="shop",service="app"} 3$',)),
    Step("state check", says=(" 0 errors$",)),
    Step("state export --format yaml", says=("^- name: shop$",), never=("hunter2",)),
    Step("backup --plain --to day.backup", says=("day.backup: .*not encrypted",)),
    Step("backup verify day.backup", says=("1 stacks", " 0 errors$")),
    Step("backup --to x", 2, says=("nobody is there to type the passphrase",)),
    Step("restore day.backup", 1, says=("runs here; nothing was changed",)),
)

# What it prints, and what is inside.
INSIDE = (
    Step("logs migrate", prints="migrate-1  | migrated\n"),
    Step("logs --no-log-prefix migrate", prints="migrated\n"),
    Step("logs -t migrate", says=("^migrate-1  \\| \\d{4}-\\d\\d-\\d\\dT\\S+Z migrated$",)),
    Step("logs --tail 1 app", says=("^app-1  \\| app 1 listens$", "^app-3  \\| app 1 listens$")),
    Step("logs nope", 1, says=("nope has no containers",)),
    Step("logs -f app db", 130, until="app-2  \\| app 1 listens"),
    Step("exec -T app sh -c 'echo $COLOUR $VERSION'", prints="green 1\n"),
    Step("exec -T app sh -c 'exit 7'", 7, prints=""),
    Step("exec -T app sh -c 'wc -c; echo gone >&2'", prints="6\n", stdin="stdin\n", says=("gone",)),
    Step("exec -T --index 2 app hostname", prints="shop-app-2\n"),
    Step("exec -T --index 9 app hostname", 1, says=("9",)),
    Step(
        "exec -T -e A=b -w /tmp -u 65534 app sh -c 'echo $A; pwd; id -u'", prints="b\n/tmp\n65534\n"
    ),
    Step("exec -T db cat /run/secrets/password", prints="hunter2\n"),
    Step("exec -T app nosuch", 127, says=("nosuch.*not found",)),
    Step("exec -T migrate true", 1, says=("migrate is not running",)),
    Step("exec -T nope true", 1, says=("no service 'nope'",)),
)

# Stopped, started, restarted: nothing that is not meant, everything in order.
AGAIN = (
    Step("restart web", says=("shop-web-1: restarted",), touches="web"),
    Step("restart nope", 1, says=("no service nope",)),
    Step(
        "events --json app",
        130,
        until="run.started.*shop-app-3",
        meanwhile="restart app",
        touches="app",
    ),
    Step("why app", says=("app of shop: . of . serve",)),
    Step("events --no-follow -n 50 app", says=("restart.asked .* \\(by ", "run.started")),
    Step("stop", says=("stop done",), touches="db app web", then=(runs(),)),
    Step("ps -a", says=("shop-db-1 .*stopped",)),
    Step("exec -T app true", 1, says=("app is not running", "stopped")),
    Step("logs --tail 1 --index 1 app", says=("app 1 listens",)),
    Step(
        "up -d",
        says=(
            "db-1 on .*healthy(.|\n)*app-1 on .*healthy(.|\n)*web-1 on",
            "migrate: completed before, not run again; corral restart migrate",
        ),
        touches="db app web",
        then=(runs(**ALL), serves("version 1 green")),
    ),
    Step("stop web", touches="web", then=(runs(db=1, app=3),)),
    Step("stop nope", 1, says=("no service nope",)),
    Step("start web", touches="web", then=(runs(**ALL), serves("version 1 green"))),
    Step("start", says=("nothing to start, everything runs",)),
    Step("start nope", 1, says=("no service nope",)),
    Step("exec -T db cat /data/starts", prints="started\nstarted\n"),
)

# The file changes: what changed is replaced, nothing else.
CHANGES = (
    Step(
        "up -d",
        edits={".env": files.env(COLOUR="blue")},
        touches="app",
        then=(runs(**ALL), serves("version 1 blue")),
    ),
    Step("up -d web", says=("done",)),
    Step("up -d --force-recreate --no-deps web", touches="web"),
    Step(
        "up -d", edits={"page.sh": f"{files.PAGE}echo bye\n"}, touches="web", then=(serves("bye"),)
    ),
    Step("scale app=5", says=("app 5/5",), touches="app", then=(runs(**{**ALL, "app": 5}),)),
    Step("up -d", says=("app keeps the 5 replicas", "corral scale app=3")),
    Step("scale app=3", says=("app 3/3",), touches="app", then=(runs(**ALL),)),
    Step("rollout status", says=("^shop: release \\d+ is deployed$", "web +rolling +done")),
    Step("rollout pause", 1, says=("nothing to pause: release \\d+ is deployed",)),
    Step("scale nope=1", 1, says=("no service nope",)),
    Step("rollback nope", 1, says=("no release of shop has a service nope",)),
    Step("history -n 1", says=("RELEASE +STATE +WHEN +WHO +CHANGED", "deployed .* root@")),
    Step("scale app", 2, says=("write web=3",)),
    Step("up -d --scale app=4", touches="app", then=(runs(**{**ALL, "app": 4}),)),
    Step("up -d --scale app=3", touches="app", then=(runs(**ALL),)),
    Step(
        "up -d --build app",
        edits={".env": files.env(VERSION=2)},
        says=("app build \\|",),
        touches="app",
        then=(serves("version 2 green"),),
    ),
)

# Mistakes: said in words, and the page is served all the while.
MISTAKES = (
    Step(
        "config -q",
        1,
        edits={"compose.override.yaml": files.app("imagee: x")},
        says=("compose.override.yaml:3:5", "did you mean image"),
    ),
    Step("up -d", 1, says=("compose.override.yaml:3:5", "nothing was changed")),
    Step(
        "up -d",
        1,
        edits={"compose.override.yaml": files.app('command: [sh, -c, "echo no module; exit 3"]')},
        says=("exit code 3|exited with code 3", "\\| no module"),
        touches="app",
        then=(serves("version 2 green"),),
    ),
    Step("ls", says=("^shop +(failed|paused)",)),
    Step(
        "up -d",
        edits={"compose.override.yaml": files.OVERRIDE},
        says=("done, 6/6",),
        touches="app",
        then=(runs(**ALL),),
    ),
    Step(
        "up -d",
        1,
        edits={
            "compose.override.yaml": files.app(
                "image: nosuch.invalid/app:9\n    build: !reset null"
            )
        },
        says=("nosuch.invalid/app:9",),
        then=(serves("version 2 green"),),
    ),
    Step("up -d", edits={"compose.override.yaml": files.OVERRIDE}, then=(runs(**ALL),)),
)

# Other files and profiles in the same folder.
OTHERS = (
    Step("-f extra.yaml up -d", says=("--remove-orphans",), touches="mail"),
    Step("ps", says=("shop-mail-1",), then=(runs(**ALL, mail=1),)),
    Step("up -d", says=("mail is not in the Compose file",)),
    Step("ps --orphans=false", never=("mail",), says=("shop-app-1",)),
    Step("up -d --remove-orphans", touches="mail", then=(runs(**ALL),)),
    Step("--profile cron up -d", touches="cron"),
    Step("logs -f cron", 130, until="cron-1  \\| tick"),
    Step("up -d", never=("cron",)),
    Step("up -d cron", never=("warning",)),
)

EVENING = (
    Step("-p shop ps -q db", says=("^t\\w+$",)),
    Step("down", says=("down done",), touches="db app web cron", then=(runs(),)),
    Step("down", says=("nothing to remove",)),
    Step("up -d", touches="db app web", then=(runs(**ALL),)),
    Step("exec -T db cat /data/starts", says=("started\nstarted\nstarted\n",)),
    Step(
        "down -v",
        says=("volume shop_data: removed", "network shop_default: removed"),
        touches="db app web",
    ),
    Step("up -d db", touches="db", then=(runs(db=1),)),
    Step("exec -T db cat /data/starts", prints="started\n"),
    Step("-p shop down -v -t 0", touches="db"),
    Step("ls -q", prints=""),
)

STEPS = (*COFFEE, *MORNING, *INSIDE, *AGAIN, *CHANGES, *MISTAKES, *OTHERS, *EVENING)


@pytest.mark.timeout(900)
def test_the_day_on_one_host(corral):
    corral.compose(files.COMPOSE, "shop")
    Day(corral.host, ["127.0.0.1"], corral.folder).run(STEPS)
