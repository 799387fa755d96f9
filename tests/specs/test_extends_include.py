"""extends and include: other files, their paths and variables, cycles, what comes in."""

import pytest


def test_a_service_of_the_same_file(folder):
    model = folder.model(
        "services:\n  base: {image: b, labels: {a: 1, b: 2}, ports: ['1:1']}\n"
        "  web: {extends: base, labels: {b: 3}, ports: ['2:2']}\n"
    )
    web = model["services"]["web"]
    assert web["image"] == "b"
    assert web["labels"] == {"a": "1", "b": "3"}
    assert [port["target"] for port in web["ports"]] == [1, 2]
    assert "extends" not in web


def test_chains_across_files_keep_each_files_paths(folder):
    files = {
        "compose.yaml": "services: {web: {extends: {file: ext/e.yaml, service: base}}}\n",
        "ext/e.yaml": "services: {base: {extends: {file: sub/f.yaml, service: deep}, build: ./c,"
        " volumes: ['./e:/e', '~/h:/h', '/abs:/a']}}\n",
        "ext/sub/f.yaml": "services: {deep: {volumes: ['./f:/f'], env_file: f.env}}\n",
        "ext/sub/f.env": "F=1\n",
    }
    web = folder.model(files)["services"]["web"]
    assert web["build"]["context"] == f"{folder.path}/ext/c"
    assert [mount["source"] for mount in web["volumes"]] == [
        f"{folder.path}/ext/sub/f",
        f"{folder.path}/ext/e",
        "/home/me/h",
        "/abs",
    ]
    assert web["environment"] == {"F": "1"}


def test_the_other_file_is_interpolated_with_the_main_variables(folder):
    files = {
        "compose.yaml": "services: {web: {extends: {file: e/e.yaml, service: b}}}\n",
        "e/e.yaml": "services: {b: {image: 'x:${T-none}'}}\n",
        "e/.env": "T=its own\n",
        ".env": "T=main\n",
    }
    assert folder.model(files)["services"]["web"]["image"] == "x:main"


def test_what_is_inherited_must_exist_here(folder):
    files = {
        "compose.yaml": "services: {web: {extends: {file: e.yaml, service: b}}}\n",
        "e.yaml": "services: {b: {image: x, depends_on: [db], networks: [n]}, db: {image: y}}\n"
        "networks: {n: {}}\n",
    }
    found = folder.refused(files)
    assert {problem.path for problem in found} == {
        "services.web.depends_on.db",
        "services.web.networks.n",
    }
    assert {problem.position.file for problem in found} == {f"{folder.path}/e.yaml"}


def test_a_profile_gated_base_is_fine(folder):
    model = folder.model(
        "services: {b: {image: x, profiles: [p]}, web: {extends: b, profiles: !reset []}}"
    )
    assert list(model["services"]) == ["web"]


def test_override_and_reset_work_on_the_base(folder):
    web = folder.model(
        "services:\n  b: {image: x, ports: ['1:1'], environment: {A: 1}, command: c}\n"
        "  web: {extends: b, ports: !override ['2:2'], environment: !reset {}}\n"
    )["services"]["web"]
    assert [port["target"] for port in web["ports"]] == [2]
    assert "environment" not in web
    assert web["command"] == ["c"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("services: {a: {image: x, extends: b}, b: {extends: a}}", "circular"),
        ("services: {a: {image: x, extends: a}}", "circular"),
        ("services: {a: {image: x, extends: nope}}", "does not exist in"),
        ("services: {a: {image: x, extends: {service: b, file: nope.yaml}}}", "cannot be read"),
        ("services: {a: {image: x, extends: {service: b, file: empty.yaml}}}", "has no services"),
        ("services: {a: {image: x, extends: {file: e.yaml}}}", "'service' is required"),
        ("services: {a: {image: x, extends: []}}", "must be a string or a mapping"),
        ("services: {a: {image: x, extends: {service: b, bogus: 1}}, b: {image: y}}", None),
        (
            "services: {a: {image: x, extends: {service: bad, file: e.yaml}}}",
            "not a container port",
        ),
    ],
)
def test_extends_that_fail(folder, text, word):
    files = {
        "compose.yaml": text + "\n",
        "empty.yaml": "x-a: 1\n",
        "e.yaml": "services: {bad: {ports: ['x']}}\n",
    }
    if word is None:
        folder.load(files)  # what is wrong with it went with the key, as in Compose
    else:
        assert word in folder.refused(files)[0].message


def test_a_misspelt_base_gets_a_suggestion(folder):
    found = folder.refused("services: {a: {image: x, extends: bsae}, base: {image: y}}\n")
    assert found[0].hint == "did you mean base?"


INCLUDED = {
    "compose.yaml": "include: [a/compose.yaml]\nservices: {main: {image: m, depends_on: [a]}}\n",
    "a/compose.yaml": "services: {a: {image: 'a:${T-none}', volumes: ['./r:/r', '../u:/u']}}\n"
    "secrets: {s: {file: ./s}}\nx-lost: 1\n",
    "a/.env": "T=inner\n",
}


def test_an_included_file_has_its_own_folder_and_variables(folder):
    model = folder.model({**INCLUDED, ".env": ""})
    a = model["services"]["a"]
    assert a["image"] == "a:inner"
    assert [mount["source"] for mount in a["volumes"]] == [
        f"{folder.path}/a/r",
        f"{folder.path}/u",
    ]
    assert model["secrets"]["s"]["file"] == f"{folder.path}/a/s"
    assert "x-lost" not in model


def test_outer_variables_win_and_inner_ones_do_not_leak(folder):
    files = dict(INCLUDED)
    files["compose.yaml"] += "x-t: ${T-none}\n"
    model = folder.model(files)
    assert model["x-t"] == "none"
    assert folder.model(files, env={"T": "outer"})["services"]["a"]["image"] == "a:outer"


def test_path_lists_project_directory_and_env_file(folder):
    files = {
        "compose.yaml": "include:\n  - path: [b/x.yaml, b/y.yaml]\n    project_directory: other\n"
        "    env_file: [one.env, two.env]\n",
        "b/x.yaml": "services: {b: {image: 'b:${T}', command: one, volumes: ['./v:/v']}}\n",
        "b/y.yaml": "services: {b: {command: two}}\n",
        "one.env": "T=1\n",
        "two.env": "T=2\n",
        "other/keep": "",
    }
    b = folder.model(files)["services"]["b"]
    assert (b["image"], b["command"]) == ("b:2", ["two"])
    assert b["volumes"][0]["source"] == f"{folder.path}/other/v"


def test_nested_includes_and_extends(folder):
    files = {
        "compose.yaml": "include: [a/a.yaml]\nservices: {}\n",
        "a/a.yaml": "include: [n/n.yaml]\nservices: {x: {extends: n, build: ./b}}\n",
        "a/n/n.yaml": "services: {n: {image: i, build: ./c, volumes: ['./v:/v']}}\n",
    }
    services = folder.model(files)["services"]
    assert services["n"]["build"]["context"] == f"{folder.path}/a/n/c"
    assert services["x"]["build"]["context"] == f"{folder.path}/a/b"
    assert services["x"]["volumes"][0]["source"] == f"{folder.path}/a/n/v"


def test_the_local_definition_merges_over_the_included_one(folder):
    files = {
        "compose.yaml": "include: [i.yaml]\n"
        "services: {a: {image: mine, labels: {l: 1}, ports: !reset []}}\n",
        "i.yaml": "services: {a: {image: theirs, labels: {k: 2}, ports: ['1:1'], tty: true}}\n",
    }
    a = folder.model(files)["services"]["a"]
    assert a["image"] == "mine"
    assert a["labels"] == {"k": "2", "l": "1"}
    assert a["tty"] is True
    assert "ports" not in a


def test_the_same_file_included_twice_is_harmless(folder):
    files = {
        "compose.yaml": "include: [i.yaml, a/j.yaml]\nservices: {}\n",
        "a/j.yaml": "include: [../i.yaml]\nservices: {j: {image: j}}\n",
        "i.yaml": "services: {i: {image: i, volumes: ['./v:/v']}}\n",
    }
    assert folder.model(files)["services"]["i"]["volumes"][0]["source"] == f"{folder.path}/v"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("include: i.yaml", "must be a list"),
        ("include: [nope.yaml]", "cannot be read"),
        ("include: [compose.yaml]", "include cycle"),
        ("include: [cycle.yaml]", "include cycle"),
        ("include: [{path: i.yaml, env_file: nope.env}]", "does not exist"),
        ("include: [{path: 3}]", "must be a path"),
        ("include: [3]", "must be a path or a mapping"),
        ("include: [{path: i.yaml, project_directory: 3}]", "must be a string"),
        ("include: [broken.yaml]", "not known"),
    ],
)
def test_includes_that_fail(folder, text, word):
    files = {
        "compose.yaml": text + "\nservices: {m: {image: m}}\n",
        "cycle.yaml": "include: [compose.yaml]\nservices: {c: {image: c}}\n",
        "i.yaml": "services: {i: {image: i}}\n",
        "broken.yaml": "services: {b: {image: b, bogus: 1}}\n",
    }
    assert word in folder.refused(files)[0].message


@pytest.mark.parametrize("text", ["include:", "include: []"])
def test_an_empty_include_is_nothing(folder, text):
    assert list(folder.model(text + "\nservices: {m: {image: m}}\n")["services"]) == ["m"]


PASSED = {
    # what stands in the included file, what else is set -> environment of its service
    "its .env": ("[T]", {}, {"T": "inner"}),
    "in map form": ("{T: }", {}, {"T": "inner"}),
    "the shell's wins": ("[T]", {"env": {"T": "shell"}}, {"T": "shell"}),
    "the project's wins over its .env": ("[T]", {"outer": "T=outer\n"}, {"T": "outer"}),
    "set nowhere": ("[NOWHERE]", {}, {"NOWHERE": None}),
    "set in the project only": ("[M]", {"outer": "M=main\n"}, {"M": "main"}),
    "a value of its own": ("[T=own]", {}, {"T": "own"}),
    "empty is a value": ("['T=']", {}, {"T": ""}),
    "given env files": ("[T]", {"files": "b.env"}, {"T": "given"}),
    "as they are written": ("[T]", {"no_env_resolution": True}, {"T": None}),
}


@pytest.mark.parametrize("case", PASSED)
def test_a_bare_variable_of_an_included_file_has_the_value_of_its_env_files(folder, case):
    written, more, expected = PASSED[case]
    env_file = f", env_file: {more['files']}" if "files" in more else ""
    files = {
        "compose.yaml": f"include: [{{path: a/compose.yaml{env_file}}}]\n"
        "services: {mine: {image: x, environment: [T]}}\n",
        "a/compose.yaml": f"services: {{web: {{image: x, environment: {written}}}}}\n",
        "a/.env": "T=inner\n",
        "b.env": "T=given\n",
        ".env": more.get("outer", ""),
    }
    options = {k: v for k, v in more.items() if k in ("env", "no_env_resolution")}
    services = folder.model(files, **options)["services"]
    assert services["web"]["environment"] == expected
    if not options and "outer" not in more:
        assert services["mine"]["environment"] == {"T": None}, "its variables never leak out"
