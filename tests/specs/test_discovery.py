"""Which files, folder, variables and name a load uses."""

import pytest

IMAGE = "services: {web: {image: x}}\n"


def named(image):
    return f"services: {{web: {{image: {image}}}}}\n"


def image(project):
    return project.model["services"]["web"]["image"]


@pytest.mark.parametrize(
    ("present", "winner"),
    [
        (["compose.yaml", "compose.yml", "docker-compose.yml"], "compose.yaml"),
        (["compose.yml", "docker-compose.yml", "docker-compose.yaml"], "compose.yml"),
        (["docker-compose.yml", "docker-compose.yaml"], "docker-compose.yml"),
        (["docker-compose.yaml"], "docker-compose.yaml"),
    ],
)
def test_the_first_of_the_known_names_wins(folder, present, winner):
    project = folder.load(dict.fromkeys(present, IMAGE))
    assert [name.rpartition("/")[2] for name in project.files] == [winner]
    assert bool(project.warnings) == (len(present) > 1)


@pytest.mark.parametrize(
    "name",
    [
        "compose.override.yml",
        "compose.override.yaml",
        "docker-compose.override.yml",
        "docker-compose.override.yaml",
    ],
)
def test_an_override_beside_the_file_is_merged(folder, name):
    project = folder.load({"docker-compose.yml": named("a"), name: named("b")})
    assert image(project) == "b"
    assert len(project.files) == 2


def test_no_override_with_explicit_files(folder):
    files = {"compose.yaml": named("a"), "compose.override.yaml": named("b")}
    assert image(folder.load(files, use=["compose.yaml"])) == "a"


def test_the_file_is_looked_for_upwards(folder):
    project = folder.load({"compose.yaml": IMAGE, "a/b/keep": ""}, cwd="a/b")
    assert project.working_dir == str(folder.path)


def test_nothing_found_is_an_error(folder):
    found = folder.refused({"other": ""})
    assert "no Compose file" in found[0].message


def test_a_named_file_must_exist(folder):
    found = folder.refused({"compose.yaml": IMAGE}, use=["nope.yaml"])
    assert "nope.yaml cannot be read" in found[0].message


def test_standard_input(folder):
    project = folder.load({"x": ""}, use=["-"], stdin=IMAGE.encode())
    assert image(project) == "x"
    assert project.working_dir == str(folder.path)


def test_compose_file_lists_files(folder):
    files = {"a.yaml": named("a"), "b.yaml": named("b")}
    assert image(folder.load(files, env={"COMPOSE_FILE": "a.yaml:b.yaml"})) == "b"
    env = {"COMPOSE_FILE": "b.yaml;a.yaml", "COMPOSE_PATH_SEPARATOR": ";"}
    assert image(folder.load(files, env=env)) == "a"
    assert "does not exist" in folder.refused(files, env={"COMPOSE_FILE": "c.yaml"})[0].message


def test_compose_file_may_come_from_dot_env(folder):
    files = {".env": "COMPOSE_FILE=a.yaml\n", "a.yaml": named("a"), "compose.yaml": named("c")}
    assert image(folder.load(files)) == "a"


def test_paths_are_relative_to_the_first_files_folder(folder):
    files = {
        "one/a.yaml": "services: {web: {image: x, volumes: ['./d:/d']}}\n",
        "two/b.yaml": "services: {web: {volumes: ['./e:/e']}}\n",
    }
    web = folder.model(files, use=["one/a.yaml", "two/b.yaml"])["services"]["web"]
    assert [mount["source"] for mount in web["volumes"]] == [
        f"{folder.path}/one/d",
        f"{folder.path}/one/e",
    ]
    web = folder.model(files, use=["one/a.yaml"], project_directory="two")["services"]["web"]
    assert web["volumes"][0]["source"] == f"{folder.path}/two/d"


@pytest.mark.parametrize(
    ("files", "options", "name"),
    [
        ({"compose.yaml": IMAGE}, {"project_name": "flag"}, "flag"),
        ({"compose.yaml": "name: file\n" + IMAGE}, {"project_name": "flag"}, "flag"),
        ({"compose.yaml": "name: file\n" + IMAGE}, {"env": {"COMPOSE_PROJECT_NAME": "v"}}, "v"),
        ({"compose.yaml": IMAGE, ".env": "COMPOSE_PROJECT_NAME=dot\n"}, {}, "dot"),
        ({"compose.yaml": "name: My.File_1\n" + IMAGE}, {}, "myfile_1"),
        ({"compose.yaml": "name: ${N}x\n" + IMAGE}, {"env": {"N": "n"}}, "nx"),
        (
            {"compose.yaml": "name: one\n" + IMAGE, "compose.override.yaml": "name: two\n"},
            {},
            "two",
        ),
    ],
)
def test_names(folder, files, options, name):
    options = {"project_name": None, **options}
    assert folder.load(files, **options).name == name


def test_the_folder_names_the_project(folder):
    folder.write({"__My App.d/compose.yaml": IMAGE})
    assert folder.load({}, cwd="__My App.d", project_name=None).name == "myappd"


@pytest.mark.parametrize("name", ["Bad", "_x", "a b", "-x"])
def test_a_given_name_must_be_valid_already(folder, name):
    assert folder.refused(IMAGE, project_name=name)[0].code == "bad-name"
    found = folder.refused(IMAGE, project_name=None, env={"COMPOSE_PROJECT_NAME": name})
    assert found[0].code == "bad-name"


@pytest.mark.parametrize("line", ["name: ___\n", "name: ${EMPTY}\n"])
def test_an_empty_name_is_refused(folder, line):
    assert folder.refused(line + IMAGE, project_name=None)[0].message == "the project name is empty"


def tag(folder, files=(), **options):
    base = {"compose.yaml": "services: {web: {image: 'x:${TAG-none}'}}\n", ".env": "TAG=dot\n"}
    return image(folder.load({**base, **dict(files)}, **options))


def test_dot_env_of_the_project_folder_is_read(folder):
    assert tag(folder) == "x:dot"
    assert tag(folder, env={"TAG": "shell"}) == "x:shell"
    assert tag(folder, env={"COMPOSE_DISABLE_ENV_FILE": "1"}) == "x:none"


def test_env_files_replace_dot_env_and_later_ones_win(folder):
    files = {"a.env": "TAG=a\n", "b.env": "TAG=b\nX=${TAG}\n"}
    assert tag(folder, files, env_files=["a.env"]) == "x:a"
    assert tag(folder, files, env_files=["a.env", "b.env"]) == "x:b"
    assert tag(folder, files, env={"COMPOSE_ENV_FILES": "b.env,a.env"}) == "x:a"


def test_a_missing_env_file_is_an_error(folder):
    assert "does not exist" in folder.refused(IMAGE, env_files=["nope.env"])[0].message


def test_a_broken_env_file_names_its_line(folder):
    folder.write({".env": "A=1\nB C=2\n"})
    assert str(folder.refused(IMAGE)[0].position) == f"{folder.path}/.env:2:1"


def test_profiles_may_come_from_the_environment(folder):
    text = "services: {a: {image: x, profiles: [p]}, b: {image: x, profiles: [q]}}\n"
    assert set(folder.model(text, env={"COMPOSE_PROFILES": "p, q"})["services"]) == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("---\n---\n", "top level"),
        ("[]", "top level"),
        ("text", "top level"),
    ],
)
def test_files_without_a_project(folder, text, word):
    assert word in folder.refused(text)[0].message


def test_an_empty_file_is_fine_beside_others(folder):
    files = {"a.yaml": "", "b.yaml": IMAGE}
    assert image(folder.load(files, use=["a.yaml", "b.yaml"])) == "x"


def test_documents_of_one_file_merge_in_order(folder):
    model = folder.model(
        "services: {web: {image: a, tty: true}}\n---\nservices: {web: {image: b}}\n"
    )
    assert model["services"]["web"]["image"] == "b"
    assert model["services"]["web"]["tty"] is True


def test_nothing_of_the_process_is_looked_at(folder, monkeypatch):
    monkeypatch.setenv("TAG", "process")
    assert tag(folder) == "x:dot"
