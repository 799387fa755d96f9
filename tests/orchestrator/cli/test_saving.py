"""`corral volume backup --pause`: who is frozen meanwhile, and who goes on."""

from __future__ import annotations

import pytest

from tests.orchestrator.cli.test_reading import row

TAR = b"\0" * 1024
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\n"
    b"Content-Length: 1024\r\nConnection: close\r\n\r\n" + TAR
)


@pytest.mark.parametrize(
    ("before", "going_on"),
    [
        (set(), {"shop-db-1", "shop-db-2", "shop-web-1"}),
        ({"shop-db-1", "shop-db-2"}, {"shop-web-1"}),
        ({"shop-db-1"}, {"shop-db-2", "shop-web-1"}),
    ],
    ids=["nothing", "a service", "a container"],
)
def test_what_was_frozen_before_stays_so(fake, corral, clean_environment, before, going_on):
    names = {"shop-db-1": "db", "shop-db-2": "db", "shop-web-1": "web"}
    frozen = set(before)

    def tasks(_request):
        return {"tasks": [row(n[5:], s, paused=n in frozen, id=n) for n, s in names.items()]}

    def pause(request):
        words = request.body["services"]
        mine = {name for name, service in names.items() if {name, service} & {*words}}
        (frozen.update if request.body["paused"] else frozen.difference_update)(mine)
        return {"tasks": sorted(mine)}

    def archive(_request):
        assert frozen == set(names), "law: all that use it, while it is read"
        return ANSWER

    fake.on("GET", "/v1/volumes/data", {"name": "data", "services": ["shop/db", "shop/web"]})
    fake.on("GET", "/v1/volumes/data/archive", archive)
    fake.on("GET", "/v1/stacks/shop/tasks", tasks)
    fake.on("POST", "/v1/stacks/shop/pause", pause)
    done = corral("volume", "backup", "data", "--pause", "-o", "data.tar")
    assert (done.code, frozen) == (0, set(names) - going_on), done.err
    assert (clean_environment.work / "data.tar").read_bytes() == TAR
