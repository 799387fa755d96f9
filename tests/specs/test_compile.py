"""From the canonical mapping to a stack: what is honoured, warned of, refused."""

import json

import pytest

from specs.api import Deploy
from specs.base import content_hash
from specs.compile.stack import compile_stack
from specs.compile.support import SUPPORT, KeyVerdict
from specs.problems import Position, SpecError
from specs.stack import Condition


def stack(services, **top):
    return compile_stack({"name": "shop", "services": services, **top}, {}, "shop")


def refusals(services, **top):
    with pytest.raises(SpecError) as caught:
        stack(services, **top)
    return {(p.path, p.code) for p in caught.value.problems if p.severity == "error"}


def test_a_full_service_ends_in_the_spec():
    spec, problems = stack(
        {
            "web": {
                "image": "nginx",
                "command": ["nginx", "-g", "daemon off;"],
                "environment": {"A": "1", "UNSET": None},
                "ports": [{"target": 80, "published": "8080", "protocol": "tcp"}],
                "volumes": [{"type": "volume", "source": "data", "target": "/data"}],
                "networks": {"front": None, "back": {"aliases": ["w"], "priority": 5}},
                "depends_on": {"db": {"condition": "service_healthy", "required": True}},
                "healthcheck": {"test": ["CMD", "true"], "interval": "1m30s", "retries": 2},
                "deploy": {
                    "replicas": 3,
                    "resources": {
                        "limits": {"cpus": "0.5", "memory": "268435456"},
                        "reservations": {"memory": 134217728},
                    },
                    "restart_policy": {"condition": "on-failure", "delay": "2s"},
                    "update_config": {"parallelism": 2, "order": "start-first"},
                },
                "secrets": [{"source": "key", "target": "/run/secrets/key"}],
                "stop_grace_period": "20s",
            },
            "db": {"image": "redis"},
        },
        networks={"front": {"name": "shop_front"}, "back": {"internal": True}},
        volumes={"data": {}},
        secrets={"key": {"file": "/k"}},
    )

    web = spec.services["web"]
    assert problems == []
    assert web.replicas == 3
    assert web.depends_on["db"].condition is Condition.HEALTHY
    assert web.task.environment == {"A": "1"}
    assert [a.network for a in web.task.networks] == ["back", "front"]
    assert web.task.healthcheck.interval == 90.0
    assert web.task.resources.limits.memory == 268435456
    assert web.task.resources.limits.cpus == 0.5
    assert web.task.restart.condition == "on-failure"
    assert web.task.stop_grace == 20.0
    assert web.update.order == "start-first"
    assert spec.volumes["data"].name == "shop_data"
    assert spec.networks["back"].internal


@pytest.mark.parametrize(
    ("value", "condition", "attempts"),
    [
        (None, "none", None),
        ("no", "none", None),
        ("always", "any", None),
        ("unless-stopped", "any", None),
        ("on-failure", "on-failure", None),
        ("on-failure:3", "on-failure", 3),
        ("any", "any", None),
        ("none", "none", None),
    ],
)
def test_restart_words(value, condition, attempts):
    """Compose reads the words of `restart` and those of Swarm's policy in either place."""
    spec, _ = stack({"a": {"image": "x", "restart": value}})
    policy = spec.services["a"].task.restart
    assert (policy.condition, policy.max_attempts) == (condition, attempts)
    if value and ":" not in value:
        swarm = {"deploy": {"restart_policy": {"condition": value, "max_attempts": 2}}}
        policy = stack({"a": {"image": "x", **swarm}})[0].services["a"].task.restart
        assert (policy.condition, policy.max_attempts) == (condition, 2)


def test_a_job_is_never_run_again_because_it_completed():
    """As in Swarm, `any` means on-failure for one, and that is said."""
    job = {"image": "x", "restart": "always", "deploy": {"mode": "replicated-job", "replicas": 5}}
    spec, problems = stack({"a": {**job, "x-corral": {"max_concurrent": 2}}})
    service = spec.services["a"]
    assert service.is_job
    assert not service.per_node
    assert (service.replicas, service.max_concurrent) == (5, 2)
    assert service.task.restart.condition == "on-failure"
    assert service.update.parallelism == 0
    assert [p.path for p in problems] == ["services.a.restart"]
    spec, problems = stack({"a": {"image": "x", "deploy": {"mode": "global-job"}}})
    assert spec.services["a"].is_job
    assert spec.services["a"].per_node
    assert not problems


SCALED = "services.a.x-corral.autoscale"


@pytest.mark.parametrize(
    ("autoscale", "more", "path"),
    [
        ("often", {}, SCALED),
        ({"cpu": "70%"}, {}, SCALED),  # no max
        ({"max": 5}, {}, SCALED),  # nothing to go by
        ({"max": 2, "min": 3, "cpu": 70}, {}, f"{SCALED}.max"),
        ({"max": 0, "cpu": 70}, {}, f"{SCALED}.max"),
        ({"max": 3001, "cpu": 70}, {}, f"{SCALED}.max"),
        ({"max": 5, "min": True, "cpu": 70}, {}, f"{SCALED}.min"),
        ({"max": 5, "cpu": "much"}, {}, f"{SCALED}.cpu"),
        ({"max": 5, "cpu": 0}, {}, f"{SCALED}.cpu"),
        ({"max": 5, "memory": "80%"}, {}, f"{SCALED}.memory"),  # of what
        ({"max": 5, "cpu": 70, "connections": 50}, {}, f"{SCALED}.connections"),
        ({"max": 5, "cpu": 70, "cooldown": "soon"}, {}, f"{SCALED}.cooldown"),
        ({"max": 5, "cpu": 70}, {"deploy": {"mode": "global"}}, SCALED),
        ({"max": 5, "cpu": 70}, {"deploy": {"mode": "replicated-job"}}, SCALED),
        ({"max": 5, "cpu": 70}, {"container_name": "x"}, "services.a.container_name"),
    ],
)
def test_a_scaling_that_makes_no_sense_is_refused_by_its_key(autoscale, more, path):
    service = {"image": "x", "x-corral": {"autoscale": autoscale}, **more}
    assert path in {p for p, _ in refusals({"a": service})}


def test_what_autoscale_says():
    said = {"min": 2, "max": 10, "cpu": "70%", "memory": 80, "cooldown": "2m", "hold": 60}
    service = {"image": "x", "mem_limit": "100m", "x-corral": {"autoscale": said}}
    made = stack({"a": service})[0].services["a"].autoscale
    assert made.model_dump() == {
        "least": 2,
        "most": 10,
        "cpu": 0.7,
        "memory": 0.8,
        "cooldown": 120.0,
        "hold": 60.0,
    }


NIGHTLY = {"cron": "0 2 * * *"}
TIMED = "services.a.x-corral.schedule"


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ({"x-corral": {"schedule": "0 2 * *"}}, TIMED),
        ({"x-corral": {"schedule": "0 0 30 2 *"}}, TIMED),
        ({"x-corral": {"schedule": 5}}, TIMED),
        ({"x-corral": {"schedule": {}}}, f"{TIMED}.cron"),
        ({"x-corral": {"schedule": {"cron": "61 * * * *"}}}, f"{TIMED}.cron"),
        ({"x-corral": {"schedule": {**NIGHTLY, "timezone": "Mars/Base"}}}, f"{TIMED}.timezone"),
        ({"x-corral": {"schedule": {**NIGHTLY, "overlap": "maybe"}}}, f"{TIMED}.overlap"),
        ({"x-corral": {"schedule": {**NIGHTLY, "missed": "all"}}}, f"{TIMED}.missed"),
        (
            {"x-corral": {"schedule": {**NIGHTLY, "missed_within": "soon"}}},
            f"{TIMED}.missed_within",
        ),
        ({"x-corral": {"schedule": {**NIGHTLY, "keep": 0}}}, f"{TIMED}.keep"),
        ({"x-corral": {"schedule": {**NIGHTLY, "keep": 101}}}, f"{TIMED}.keep"),
        ({"x-corral": {"schedule": {**NIGHTLY, "jitter": "1d"}}}, f"{TIMED}.jitter"),
        ({"x-corral": {"schedule": {"cron": "* * * * *", "jitter": 60}}}, f"{TIMED}.jitter"),
        ({"x-corral": {"schedule": {**NIGHTLY, "deadline": "x"}}}, f"{TIMED}.deadline"),
        ({"x-corral": {"schedule": {**NIGHTLY, "colour": "red"}}}, f"{TIMED}.colour"),
        (
            {"x-corral": {"schedule": "@daily"}, "deploy": {"mode": "replicated-job"}},
            "services.a.deploy.mode",
        ),
        (
            {"x-corral": {"schedule": "@daily"}, "deploy": {"replicas": 2}},
            "services.a.deploy.replicas",
        ),
        ({"x-corral": {"schedule": "@daily"}, "scale": 2}, "services.a.scale"),
        (
            {"x-corral": {"schedule": "@daily"}, "deploy": {"update_config": {"delay": "1s"}}},
            "services.a.deploy.update_config",
        ),
        ({"x-corral": {"schedule": "@daily"}, "ports": [{"target": 80}]}, "services.a.ports"),
        (
            {"x-corral": {"schedule": "@daily", "canary": {"replicas": 1}}},
            "services.a.x-corral.canary",
        ),
        (
            {"x-corral": {"schedule": "@daily", "update": "blue-green"}},
            "services.a.x-corral.update",
        ),
        (
            {"x-corral": {"schedule": "@daily", "depends_deadline": "5m"}},
            "services.a.x-corral.depends_deadline",
        ),
        ({"x-corral": {"schedule": "@daily"}, "container_name": "x"}, "services.a.container_name"),
        (
            {"x-corral": {"schedule": "@daily", "exclusive": True}},
            "services.a.x-corral.exclusive",
        ),
    ],
)
def test_a_schedule_is_refused_by_its_key(service, path):
    assert path in {p for p, _ in refusals({"a": {"image": "x", **service}})}


def test_nothing_waits_for_what_runs_at_its_times():
    timed = {"image": "x", "x-corral": {"schedule": "@daily"}}
    edge = {"depends_on": {"a": {"condition": "service_completed_successfully"}}}
    found = refusals({"a": timed, "b": {"image": "x", **edge}})
    assert {p for p, _ in found} == {"services.b.depends_on.a"}


def test_what_a_schedule_says():
    schedule = {
        "cron": "30 3 * * sun",
        "timezone": "Europe/Berlin",
        "jitter": "5m",
        "overlap": "replace",
        "missed": "skip",
        "missed_within": "2h",
        "keep": 9,
        "deadline": 90,
        "paused": True,
    }
    timed = {"image": "x", "restart": "always", "x-corral": {"schedule": schedule}}
    spec, problems = stack({"a": timed, "b": {"image": "x", "x-corral": {"schedule": "@daily"}}})
    made = spec.services["a"]
    assert made.replicas == 0
    assert made.task.restart.condition == "on-failure"
    assert [p.path for p in problems] == ["services.a.restart"]
    assert made.schedule.model_dump() == {
        **schedule,
        "jitter": 300.0,
        "missed_within": 7200.0,
        "deadline": 90.0,
    }
    plain = spec.services["b"].schedule
    assert (plain.cron, plain.timezone, plain.overlap) == ("@daily", "UTC", "forbid")
    assert (plain.missed, plain.missed_within, plain.keep) == ("run-once", 3600.0, 5)


@pytest.mark.parametrize("word", ["allways", "True", "on_failure", "ANY", "on-failure-3", "-"])
def test_other_restart_words_are_refused_in_either_place(word):
    service = {"image": "x", "restart": word}
    assert "services.a.restart" in {p for p, _ in refusals({"a": service})}
    service = {"image": "x", "deploy": {"restart_policy": {"condition": word}}}
    path = "services.a.deploy.restart_policy.condition"
    assert path in {p for p, _ in refusals({"a": service})}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("tcp", "tcp"),
        ("udp", "udp"),
        ("UDP", "udp"),
        ("Sctp", "sctp"),
        ("", "tcp"),
        (None, "tcp"),
    ],
)
def test_a_protocol_is_one_in_any_case(written, meant):
    ports = [{"target": 80, "published": "80", "protocol": written}]
    spec, _ = stack({"a": {"image": "x", "ports": ports}})
    assert spec.services["a"].task.ports[0].protocol == meant


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ({"pid": "container:b"}, "services.a.pid"),
        ({"volumes_from": ["b"]}, "services.a.volumes_from[0]"),
        ({"network_mode": "container:b"}, "services.a.network_mode"),
        ({"logging": {"driver": "gelf"}}, "services.a.logging.driver"),
        ({"deploy": {"mode": "sometimes"}}, "services.a.deploy.mode"),
        (
            {"deploy": {"mode": "replicated-job", "update_config": {"parallelism": 2}}},
            "services.a.deploy.update_config",
        ),
        (
            {"deploy": {"mode": "global-job", "rollback_config": {"delay": "1s"}}},
            "services.a.deploy.rollback_config",
        ),
        (
            {"deploy": {"mode": "replicated-job"}, "ports": [{"target": 80}]},
            "services.a.ports",
        ),
        (
            {"deploy": {"mode": "replicated-job"}, "x-corral": {"exclusive": True}},
            "services.a.x-corral.exclusive",
        ),
        ({"x-corral": {"max_concurrent": 2}}, "services.a.x-corral.max_concurrent"),
        (
            {"deploy": {"mode": "global-job"}, "x-corral": {"max_concurrent": 2}},
            "services.a.x-corral.max_concurrent",
        ),
        (
            {"deploy": {"mode": "replicated-job"}, "x-corral": {"max_concurrent": 0}},
            "services.a.x-corral.max_concurrent",
        ),
        ({"gpus": [{"count": -1}]}, "services.a.gpus"),
        ({"security_opt": ["foo"]}, "services.a.security_opt[0]"),
        ({"security_opt": ["seccomp=/x.json"]}, "services.a.security_opt[0]"),
        ({"security_opt": ["no-new-privileges:maybe"]}, "services.a.security_opt[0]"),
        ({"x-corral": {"colour": "red"}}, "services.a.x-corral.colour"),
        ({"x-corral": {"on_unhealthy": "panic"}}, "services.a.x-corral.on_unhealthy"),
        ({"x-corral": {"on_reboot": "restart"}}, "services.a.x-corral.on_reboot"),
        ({"x-corral": {"strategy": "binpack"}}, "services.a.x-corral.strategy"),
        ({"x-corral": {"strategy": True}}, "services.a.x-corral.strategy"),
        (
            {"deploy": {"mode": "global"}, "x-corral": {"strategy": "pack"}},
            "services.a.x-corral.strategy",
        ),
        ({"x-corral": {"on_reboot": False}}, "services.a.x-corral.on_reboot"),
    ],
)
def test_what_would_be_wrong_without_is_refused(service, path):
    assert path in {p for p, _ in refusals({"a": {"image": "x", **service}})}


@pytest.mark.parametrize(
    ("own", "restart", "fields"),
    [
        ({}, "no", ("policy", False, "run")),
        ({}, "always", ("policy", True, "run")),
        ({}, "on-failure:3", ("policy", True, "run")),
        ({"on_unhealthy": "policy"}, "unless-stopped", ("policy", True, "run")),
        ({"on_unhealthy": "keep"}, "always", ("keep", False, "run")),
        ({"on_unhealthy": "restart"}, "no", ("restart", True, "run")),
        ({"on_reboot": "keep"}, "no", ("policy", False, "keep")),
        ({"on_reboot": "run"}, "always", ("policy", True, "run")),
    ],
)
def test_what_is_asked_for_the_unhealthy_and_for_reboots(own, restart, fields):
    spec, _ = stack({"a": {"image": "x", "restart": restart, "x-corral": own}})
    task = spec.services["a"].task
    assert (task.on_unhealthy, task.restarts_unhealthy, task.on_reboot) == fields


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (["no-new-privileges"], (True, "default", "default")),
        (["no-new-privileges:true", "seccomp:unconfined"], (True, "unconfined", "default")),
        (["no-new-privileges=true", "no-new-privileges=false"], (False, "default", "default")),
        (["apparmor=unconfined", "label:disable"], (False, "default", "unconfined")),
        (["apparmor:unconfined"], (False, "default", "unconfined")),
        (["apparmor=my-profile"], (False, "default", "default")),
    ],
)
def test_security_options_become_fields(options, fields):
    spec, _ = stack({"a": {"image": "x", "security_opt": options}})
    task = spec.services["a"].task
    assert (task.no_new_privileges, task.seccomp, task.apparmor) == fields


@pytest.mark.parametrize(
    ("reference", "mode"),
    [
        ({}, None),  # 0444 on the node
        ({"mode": "0400"}, 0o400),
        ({"mode": "0440"}, 0o440),
        ({"mode": ""}, None),
        ({"mode": "0000"}, 0),
        ({"uid": "33"}, None),
    ],
)
@pytest.mark.parametrize("kind", ["secrets", "configs"])
def test_a_files_mode_is_what_the_service_says(kind, reference, mode):
    reference = {"source": "key", **reference}
    spec, _ = stack({"a": {"image": "x", kind: [reference]}}, **{kind: {"key": {"file": "/k"}}})
    (found,) = getattr(spec.services["a"].task, kind)
    assert found.mode == mode


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        ({}, True),
        ({"type": "", "o": "", "device": ""}, True),
        ({"type": None}, True),
        ({"type": "nfs", "o": "addr=10.0.0.1", "device": ":/srv"}, True),
        ({"type": "none", "o": "bind", "device": "/srv"}, True),
        ({"type": "ext4", "device": "/dev/sda1"}, False),
        ({"type": "none", "o": "bind", "device": "/srv/../etc"}, False),
        ({"type": "", "size": "1g"}, False),
    ],
)
def test_options_of_a_volume_that_mean_something_here(options, runs):
    services, volumes = {"a": {"image": "x"}}, {"data": {"driver_opts": options}}
    if runs:
        assert stack(services, volumes=volumes)[0].volumes["data"].name == "shop_data"
    else:
        assert "volumes.data.driver_opts" in {p for p, _ in refusals(services, volumes=volumes)}


def test_what_is_safe_without_is_a_warning_once():
    _, problems = stack(
        {"a": {"image": "x", "storage_opt": {"size": "1g"}, "blkio_config": {"weight": 10}}}
    )
    assert [(p.path, p.severity) for p in problems] == [
        ("services.a.storage_opt", "warning"),
        ("services.a.blkio_config", "warning"),
    ]


def test_an_encrypted_network_is_never_a_plain_one():
    found = refusals({}, networks={"n": {"driver_opts": {"encrypted": ""}}})
    assert ("networks.n", "encrypted") in found


def test_two_services_on_one_port_are_refused():
    port = [{"target": 80, "published": "80", "protocol": "tcp"}]
    found = refusals({"a": {"image": "x", "ports": port}, "b": {"image": "x", "ports": port}})
    assert ("services.b.ports[0]", "port-clash") in found


def test_problems_point_into_the_file():
    with pytest.raises(SpecError) as caught:
        compile_stack(
            {"services": {"a": {"image": "x", "pid": "container:b"}}},
            {"services.a": Position("compose.yaml", 2, 3)},
            "shop",
        )
    assert str(caught.value.problems[0].position) == "compose.yaml:2:3"


def test_every_refusal_in_the_table_says_what_to_do():
    silent = [path for path, s in SUPPORT.items() if s.verdict is KeyVerdict.REFUSED and not s.note]
    assert silent == []


def test_the_hash_moves_with_the_task_and_not_with_the_replicas():
    one, _ = stack({"a": {"image": "x", "deploy": {"replicas": 1}}})
    three, _ = stack({"a": {"image": "x", "deploy": {"replicas": 3}}})
    other, _ = stack({"a": {"image": "x", "environment": {"A": "1"}, "deploy": {}}})
    assert content_hash(one.services["a"].task) == content_hash(three.services["a"].task)
    assert content_hash(one.services["a"].task) != content_hash(other.services["a"].task)


def test_a_bind_from_beside_the_file_is_tied_to_its_machine():
    mounts = [
        {"type": "bind", "source": "/home/me/shop/conf", "target": "/a"},
        {"type": "bind", "source": "/home/me/shopping", "target": "/b"},
        {"type": "bind", "source": "/etc/ssl", "target": "/c"},
    ]
    spec, _ = compile_stack(
        {"services": {"a": {"image": "x", "volumes": mounts}}}, {}, "shop", "/home/me/shop"
    )
    assert [m.relative for m in spec.services["a"].task.mounts] == [True, False, False]
    assert all(m.create_host_path for m in spec.services["a"].task.mounts)


@pytest.mark.parametrize(
    ("subpath", "taken"),
    [
        ("a", True),
        ("a/b.d/..c", True),
        ("./a", True),
        ("", True),
        ("..", False),
        ("../..", False),
        ("a/../../b", False),
        ("a/..", False),
        ("/", False),
        ("/etc", False),
    ],
)
def test_a_subpath_stays_in_its_volume(subpath, taken):
    mount = {"type": "volume", "source": "d", "target": "/d", "volume": {"subpath": subpath}}
    service = {"a": {"image": "x", "volumes": [mount]}}
    if taken:
        spec, _ = stack(service, volumes={"d": {}})
        assert spec.services["a"].task.mounts[0].subpath == subpath
    else:
        found = {path for path, _ in refusals(service, volumes={"d": {}})}
        assert found == {"services.a.volumes[0].volume.subpath"}


def test_origins_arrive_as_positions():
    sent = {"services.a": {"file": "a:b.yaml", "line": 2, "column": 3}}
    deploy = Deploy.model_validate({"key": "k", "project": {}, "origins": sent})
    assert deploy.origins == {"services.a": Position("a:b.yaml", 2, 3)}
    assert json.loads(deploy.encode())["origins"] == sent


NEEDS = {"resources": {"reservations": {"memory": "1g"}}}
STRATEGIES = {
    # the stack's, the service's, what it reserves -> its strategy, what is warned of
    "neither": (None, None, {}, "spread", []),
    "the stack's": ("pack", None, {}, "pack", []),
    "its own": (None, "pack", NEEDS, "pack", []),
    "its own before the stack's": ("pack", "spread", {}, "spread", []),
    "it reserves nothing": (None, "pack", {}, "pack", ["services.a.x-corral.strategy"]),
    "a global one of a packed stack": ("pack", None, {"mode": "global"}, "spread", []),
}


@pytest.mark.parametrize("case", STRATEGIES)
def test_how_tasks_are_placed(case):
    whole, own, deploy, strategy, warned = STRATEGIES[case]
    service = {"image": "x", "deploy": deploy, "x-corral": {"strategy": own} if own else {}}
    spec, problems = stack({"a": service}, **({"x-corral": {"strategy": whole}} if whole else {}))
    assert spec.services["a"].placement.strategy == strategy
    assert [problem.path for problem in problems] == warned


def test_an_unknown_strategy_of_a_stack_is_refused():
    assert ("x-corral.strategy") in {
        path for path, _ in refusals({"a": {"image": "x"}}, **{"x-corral": {"strategy": "tight"}})
    }
