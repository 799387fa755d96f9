"""Normalisation, paths, consistency, profiles, selection, pruning."""

import pytest


def model(folder, text, **options):
    return folder.model(text, **options)


@pytest.mark.parametrize(
    ("body", "target", "restart"),
    [
        ("links: ['db:alias']", "db", True),
        ("links: [db]", "db", True),
        ("network_mode: service:db", "db", True),
        ("ipc: service:db", "db", True),
        ("pid: service:db", "db", True),
        ("volumes_from: ['db:ro']", "db", False),
        ("volumes_from: ['container:c']", None, False),
    ],
)
def test_implied_dependencies(folder, body, target, restart):
    web = model(folder, f"services:\n  web: {{image: x, {body}}}\n  db: {{image: y}}\n")[
        "services"
    ]["web"]
    if target is None:
        assert "depends_on" not in web
    else:
        how = {"condition": "service_started", "required": True}
        assert web["depends_on"] == {target: {**how, "restart": True} if restart else how}


@pytest.mark.parametrize(
    ("body", "networks"),
    [
        ("", {"default": None}),
        ("networks: []", {"default": None}),
        ("networks: [n]", {"n": None}),
        ("network_mode: host", None),
        ("provider: {type: t}", None),
    ],
)
def test_the_default_network(folder, body, networks):
    found = model(folder, f"services:\n  web:\n    image: x\n    {body}\nnetworks: {{n: }}\n")
    assert found["services"]["web"].get("networks") == networks
    assert ("default" in found["networks"]) == (networks == {"default": None})


def test_without_normalisation_nothing_is_implied(folder):
    found = model(
        folder,
        "services: {web: {build: ., links: [db]}, db: {image: y}}\nvolumes: {v: }\n",
        no_normalize=True,
    )
    assert "networks" not in found
    assert found["services"]["web"]["build"] == {"context": str(folder.path)}
    assert "depends_on" not in found["services"]["web"]
    assert found["volumes"] == {"v": {}}


def test_if_not_present_is_missing(folder):
    assert folder.web("pull_policy: if_not_present")["pull_policy"] == "missing"


def test_bare_keys_are_passed_through(folder):
    web = folder.web("environment: [A, B]", env={"A": "1"})
    assert web["environment"] == {"A": "1", "B": None}


@pytest.mark.parametrize(
    ("body", "key", "value"),
    [
        ("volumes: ['./a/../b:/x']", "volumes", "/b"),
        ("volumes: ['~/a:/x']", "volumes", "~/a"),
        ("env_file: ./e.env", "env_file", "/e.env"),
    ],
)
def test_paths(folder, body, key, value):
    folder.write({"e.env": ""})
    web = folder.web(body, no_env_resolution=True)
    wanted = value.replace("~", "/home/me") if value[0] == "~" else f"{folder.path}{value}"
    assert (web[key][0].get("source") or web[key][0]["path"]) == wanted


def test_without_path_resolution_paths_stay(folder):
    web = folder.web("volumes: ['./a:/x']\nbuild: ./b", no_path_resolution=True)
    assert web["volumes"][0]["source"] == "./a"
    assert web["build"]["context"] == "./b"


def test_local_bind_volumes_are_resolved(folder):
    text = "services: {}\nvolumes: {v: {driver: local, driver_opts: {o: bind, device: ./d}}}\n"
    assert model(folder, text)["volumes"]["v"]["driver_opts"]["device"] == f"{folder.path}/d"


def test_watched_links_are_followed(folder):
    (folder.path / "real").mkdir()
    (folder.path / "link").symlink_to(folder.path / "real")
    web = folder.web("develop: {watch: [{path: ./link/x, action: rebuild}]}")
    assert web["develop"]["watch"][0]["path"] == f"{folder.path}/real/x"


BASE = """
services:
  web:
    image: x
    BODY
  db: {image: y, BUILD}
  gone: {image: z, profiles: [off]}
networks: {front: {}}
volumes: {data: {}}
"""


@pytest.mark.parametrize(
    ("body", "path", "word", "hint"),
    [
        (
            "networks: [frnt]",
            "networks.frnt",
            "network 'frnt' is not defined",
            "did you mean front?",
        ),
        ("volumes: ['dta:/d']", "volumes[0]", "volume 'dta' is not defined", "did you mean data?"),
        ("secrets: [s]", "secrets[0]", "secret 's' is not defined", "secrets: at the top"),
        ("configs: [c]", "configs[0]", "config 'c' is not defined", ""),
        ("models: [m]", "models.m", "model 'm' is not defined", ""),
        ("build: {secrets: [s]}", "build.secrets[0]", "secret 's'", ""),
        ("depends_on: [dbb]", "depends_on.dbb", "not defined", "did you mean db?"),
        ("depends_on: [gone]", "depends_on.gone", "profile is not active", "(off)"),
        ("network_mode: service:nope", "depends_on.nope", "not defined", ""),
        ("network_mode: host\n    networks: [front]", "network_mode", "exclude each other", ""),
        ("build: {dockerfile: D, dockerfile_inline: x}", "build.dockerfile_inline", "exclude", ""),
        (
            "build: {additional_contexts: {a: 'service:nope'}}",
            "build.additional_contexts.a",
            "not defined",
            "",
        ),
        (
            "build: {additional_contexts: {a: 'service:db'}}",
            "build.additional_contexts.a",
            "has no build",
            "",
        ),
        ("platform: p\n    build: {platforms: [q]}", "build.platforms", "must contain", "add p"),
        ("healthcheck: {test: [curl]}", "healthcheck.test", "must begin with CMD", ""),
        ("scale: -1", "scale", "negative", ""),
        ("deploy: {replicas: -1}", "deploy.replicas", "negative", ""),
        ("scale: 2\n    deploy: {replicas: 3}", "scale", "differ", ""),
        ("scale: 2\n    container_name: ccc", "container_name", "one replica", ""),
        ("cpus: 1\n    deploy: {resources: {limits: {cpus: '2'}}}", "cpus", "differ", ""),
        ("mem_limit: 1g\n    deploy: {resources: {limits: {pids: 1}}}", "mem_limit", "differ", ""),
        (
            "mem_reservation: 1\n    deploy: {resources: {reservations: {memory: '2'}}}",
            "mem_reservation",
            "differ",
            "",
        ),
        ("pids_limit: 1\n    deploy: {resources: {limits: {pids: 2}}}", "pids_limit", "differ", ""),
        ("develop: {watch: [{path: ., action: sync}]}", "develop.watch[0]", "needs a target", ""),
        ("tmpfs: /a\n    volumes: ['data:/a']", "volumes[0]", "already mounted at /a", ""),
        ("volumes: [{type: bind, target: /a}]", "volumes[0]", "needs a source", ""),
        ("ports: [{target: 1, host_ip: x}]", "ports[0].host_ip", "not an IP address", ""),
        ("gpus: [{count: 1, device_ids: [a]}]", "gpus[0]", "exclude each other", ""),
        ("develop: {watch: [{path: '', action: rebuild}]}", "develop.watch[0].path", "empty", ""),
        ("depends_on: [web]", "depends_on.web", "web -> web", ""),
        ("environment: ['A =1']", "environment", "ends with a space", ""),
    ],
)
def test_inconsistencies(folder, body, path, word, hint):
    found = folder.refused(BASE.replace("BODY", body).replace(", BUILD", ""))
    problem = next(p for p in found if p.path == f"services.web.{path}")
    assert word in problem.message
    assert hint in problem.hint
    assert problem.position is not None


CYCLE = """
services:
  a: {image: x, depends_on: [b]}
  b: {image: x, depends_on: [c]}
  c: {image: x, depends_on: [a]}
"""


@pytest.mark.parametrize(
    ("text", "path", "word"),
    [
        ("services: {a: {tty: true}}", "services.a", "neither an image nor a build"),
        ("services: {a: {image: ''}}", "services.a", "neither an image nor a build"),
        ("services: {}\nsecrets: {s: {}}", "secrets.s", "no source"),
        ("services: {}\nsecrets: {s: {external: false}}", "secrets.s", "no source"),
        ("services: {}\nsecrets: {s: {file: a, environment: b}}", "secrets.s", "exclude"),
        ("services: {}\nconfigs: {c: {file: a, content: b}}", "configs.c", "exclude"),
        (
            "services: {}\nvolumes: {v: {external: true, driver: d}}",
            "volumes.v",
            "cannot have 'driver'",
        ),
        ("services: {}\nvolumes: {v: {name: a, external: {name: b}}}", "volumes.v", "differ"),
        (
            CYCLE,
            "services.a.depends_on.b",
            "a -> b -> c -> a",
        ),
        (
            "services: {a: {image: x, container_name: nnn}, b: {image: x, container_name: nnn}}",
            "services.b.container_name",
            "already used by a",
        ),
    ],
)
def test_inconsistent_projects(folder, text, path, word):
    found = folder.refused(text + "\n")
    assert (found[0].path, word in found[0].message) == (path, True), found


def test_no_consistency_lets_them_pass(folder):
    web = folder.web("networks: [nope]\ndepends_on: [nope]", no_consistency=True)
    assert web["networks"] == {"nope": None}


def test_scale_becomes_replicas_too(folder):
    assert folder.web("scale: 2\ndeploy: {mode: replicated}")["deploy"]["replicas"] == 2


PROFILED = """
services:
  web: {image: x, depends_on: [db], networks: [front]}
  db: {image: y, networks: [back], volumes: ['data:/d']}
  debug: {image: z, profiles: [debug], depends_on: [web]}
  tool:
    image: t
    profiles: [tools]
    depends_on: {extra: {condition: service_started, required: false}}
  extra: {image: e, profiles: [more]}
  broken: {image: b, profiles: [broken], networks: [nope]}
networks: {front: , back: , unused: }
volumes: {data: , spare: }
secrets: {s: {environment: S}}
"""


@pytest.mark.parametrize(
    ("options", "services"),
    [
        ({}, {"web", "db"}),
        ({"profiles": ["debug"]}, {"web", "db", "debug"}),
        ({"profiles": ["debug", "more"]}, {"web", "db", "debug", "extra"}),
        ({"services": ["db"]}, {"db"}),
        ({"services": ["web"]}, {"web", "db"}),
        ({"services": ["debug"]}, {"web", "db", "debug"}),
        ({"services": ["tool"]}, {"tool"}),
        ({"services": ["tool"], "profiles": ["more"]}, {"tool", "extra"}),
        ({"services": ["d*"], "profiles": ["debug"]}, {"db", "debug", "web"}),
        ({"services": ["broken"]}, {"broken"}),
    ],
)
def test_profiles_and_selection(folder, options, services):
    assert set(folder.model(PROFILED, **options)["services"]) == services


def test_all_profiles_at_once_check_everything(folder):
    assert folder.refused(PROFILED, profiles=["*"])[0].path == "services.broken.networks.nope"


def test_dependencies_left_out_disappear_from_the_service(folder):
    assert "depends_on" not in folder.model(PROFILED, services=["tool"])["services"]["tool"]


def test_unknown_services_are_refused(folder):
    found = folder.refused(PROFILED, services=["wbe"])
    assert "no such service: wbe" in found[0].message
    assert found[0].hint == "did you mean web?"


def test_prune_drops_what_nobody_uses(folder):
    found = folder.model(PROFILED, prune=True)
    assert set(found["networks"]) == {"front", "back"}
    assert set(found["volumes"]) == {"data"}
    assert "secrets" not in found
    assert set(folder.model(PROFILED, prune=True, services=["db"])["networks"]) == {"back"}


def test_a_broken_unselected_service_still_fails_but_its_env_file_does_not(folder):
    text = "services: {a: {image: x}, b: {image: y, env_file: nope.env}}\n"
    assert set(folder.model(text, services=["a"])["services"]) == {"a"}
    assert "does not exist" in folder.refused(text)[0].message


def test_disabled_services_are_still_known(folder):
    assert set(folder.load(PROFILED).disabled) == {"debug", "tool", "extra", "broken"}


def test_one_mistake_has_no_consequences(folder):
    found = folder.refused(
        "services:\n  web: {image: x, volumes: ['data:/d'], depends_on: [db]}\n"
        "  db: {imag: y}\nvolumes: [data]\n"
    )
    assert [problem.path for problem in found] == ["services.db.imag", "volumes"]
