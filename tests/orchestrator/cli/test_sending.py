"""What is sent of a build's context: all but what its node would ignore, and nothing less."""

from __future__ import annotations

import pytest

from orchestrator.cli.sending import Folder, ignored_by

FILES = (
    *("Dockerfile", "build.Dockerfile", "app.py", "notes.md", "README.md"),
    *("node_modules/a/index.js", "src/main.py", "src/keep.log", "src/drop.log"),
    *("docs/a.md", "docs/deep/b.md", "docs/deep/keep.md", "dist/out.js"),
)
# .dockerignore -> what is left out, and folders with it
LEFT_OUT = {
    "": set(),
    "# nothing\n\n": set(),
    "node_modules": {"node_modules", "node_modules/a", "node_modules/a/index.js"},
    "*.md": {"notes.md", "README.md"},
    "*.md\n!README.md": {"notes.md"},
    "**/*.log\n!src/keep.log": {"src/drop.log"},
    "docs\n!docs/deep/keep.md": {"docs/a.md", "docs/deep/b.md"},
    "docs/\n/dist": {"docs", "docs/a.md", "docs/deep", "docs/deep/b.md", "docs/deep/keep.md",
                     "dist", "dist/out.js"},
    "*\n!src\n!app.py": {"node_modules", "node_modules/a", "node_modules/a/index.js", "notes.md",
                         "README.md", "docs", "docs/a.md", "docs/deep", "docs/deep/b.md",
                         "docs/deep/keep.md", "dist", "dist/out.js", "build.Dockerfile"},
    "Dockerfile\n.dockerignore": set(),
}  # fmt: skip


@pytest.fixture
def context(tmp_path):
    top = tmp_path / "context"
    for name in FILES:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return top


def all_of(names):
    return {way for name in names for way in (name, *map(str, list_of_folders(name)))}


def list_of_folders(name):
    parts = name.split("/")[:-1]
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def sent(context, dockerfile="Dockerfile"):
    found = [
        entry["path"]
        for entry in Folder(str(context), ignored_by(str(context), dockerfile)[1]).entries
    ]
    assert len(found) == len(set(found))
    for path in found:
        assert all(found.index(way) < found.index(path) for way in list_of_folders(path)), (
            "a folder comes before what is in it"
        )
    return set(found)


@pytest.mark.parametrize("text", LEFT_OUT)
def test_what_the_patterns_say(context, text):
    (context / ".dockerignore").write_text(text)
    assert sent(context) == all_of(FILES) - LEFT_OUT[text] | {".dockerignore"}


def test_the_dockerfile_s_own_ignore_file_is_the_one_that_counts(context):
    (context / ".dockerignore").write_text("*\n")
    (context / "build.Dockerfile.dockerignore").write_text("docs\n")
    assert "src/main.py" in sent(context, "build.Dockerfile")
    assert "docs" not in sent(context, "build.Dockerfile")
    assert sent(context) == {"Dockerfile", ".dockerignore"}
    (context / ".containerignore").write_text("dist\n")
    assert "docs/a.md" in sent(context)
    assert "dist" not in sent(context)


def test_without_one_or_with_one_that_cannot_be_read_all_is_sent(context):
    assert sent(context) == all_of(FILES)
    (context / ".dockerignore").write_bytes(b"\xff\xfe")
    assert sent(context) == all_of(FILES) | {".dockerignore"}
    (context / ".dockerignore").unlink()
    (context / ".dockerignore").mkdir()
    assert "src/main.py" in sent(context), "a folder of that name says nothing"
