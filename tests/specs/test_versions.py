"""Which of two versions of corral is newer; equal only to itself."""

from __future__ import annotations

import pytest

from specs.kit import versions


@pytest.mark.parametrize(
    ("one", "than", "age"),
    [
        ("0.1.0", "0.1.0", ""),
        ("0.1.0", "0.2.0", "older"),
        ("0.10.0", "0.9.9", "newer"),
        ("1.0.0rc1", "1.0.0", "older"),
        ("1.0.0rc2", "1.0.0rc10", "older"),
        ("1.0.0.dev3", "1.0.0rc1", "older"),
        ("1.0.0.post1", "1.0.0", "newer"),
        ("1.0", "1.0.0", "another build"),
        ("0.1.0+abc", "0.1.0", "another build"),
        ("0", "0.0.1", "older"),
        ("", "0.0.1", "older"),
        ("what?", "0.0.1", "older"),
    ],
)
def test_age(one, than, age):
    assert versions.age(one, than) == age
    back = {"older": "newer", "newer": "older"}
    assert versions.age(than, one) == back.get(age, age)


def test_the_installed_version_is_the_projects():
    assert versions.installed() != versions.UNKNOWN
    assert not versions.age(versions.installed(), versions.installed())


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("VERSION-0123456789ab", True),
        ("VERSION-0123456789ABC", False),
        ("VERSION-dirty", False),
        ("9.9.9-0123456789ab", False),
        ("corral", False),
        ("VERSION", False),
    ],
)
def test_the_build_is_the_folder_an_agent_was_sent_into(tmp_path, folder, said):
    name = folder.replace("VERSION", versions.installed())
    (tmp_path / name / "agent").mkdir(parents=True)
    (tmp_path / "current").symlink_to(name)
    found = versions.build_of(tmp_path / "current" / "agent")
    assert found == (name if said else "")
