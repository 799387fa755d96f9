"""`images`: which container has which image, of which build."""

from __future__ import annotations

import json

import pytest

from tests.orchestrator.cli.test_reading import row

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64


@pytest.fixture
def shop(fake):
    rows = [
        row("web-10", "web", image="registry.example:5000/team/web:1.2", image_digest=ONE),
        row("web-2", "web", image=f"registry.example:5000/team/web:1.2@{ONE}", node="beta"),
        row("db-1", "db", image="postgres", image_digest=TWO),
        row("new-1", "new", image="new", node=None),
    ]
    services = [{"name": name} for name in ("db", "new", "web")]
    fake.on("GET", "/v1/stacks/shop", {"name": "shop", "services": services})
    fake.on("GET", "/v1/stacks/shop/tasks", {"tasks": rows})
    return fake


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ([], ["CONTAINER REPOSITORY TAG IMAGE ID NODE",
              f"shop-db-1 postgres latest {'2' * 12} alpha",
              "shop-new-1 new latest - -",
              f"shop-web-2 registry.example:5000/team/web 1.2 {'1' * 12} beta",
              f"shop-web-10 registry.example:5000/team/web 1.2 {'1' * 12} alpha"]),
        (["db"], ["CONTAINER REPOSITORY TAG IMAGE ID NODE",
                  f"shop-db-1 postgres latest {'2' * 12} alpha"]),
        (["-q"], ["2" * 64, "1" * 64]),  # as `docker rmi` takes them, each once
        (["-q", "new"], []),
        (["--format", "{{.ContainerName}} {{.Tag}}", "web"], ["shop-web-2 1.2", "shop-web-10 1.2"]),
    ],
)  # fmt: skip
def test_the_image_of_each_container(shop, corral, words, lines):
    done = corral("-p", "shop", "images", *words)
    assert done.code == 0
    assert [" ".join(line.split()) for line in done.out.splitlines()] == lines
    assert len(shop.requests) == 2, "not one for each container"


def test_for_programs(shop, corral):
    done = corral("-p", "shop", "images", "--format", "json", "db")
    (one,) = map(json.loads, done.out.splitlines())
    assert (one["ID"], one["Repository"], one["Node"]) == (TWO, "postgres", "alpha")


def test_what_is_not_there(shop, corral):
    done = corral("-p", "shop", "images", "nope")
    assert (done.code, "services of shop: db, new, web" in done.err) == (1, True)
    assert corral("-p", "other", "images").code == 1
