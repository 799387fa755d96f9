"""What a command says while this machine's controller is on its way: it waits, then says so."""

from __future__ import annotations

import os
import threading
import time

import pytest

from orchestrator.client import client as clients
from orchestrator.client import places
from orchestrator.client.client import Client
from orchestrator.client.errors import NoController

CASES = {
    # a living supervisor, booted just now, was there before -> waits, the hint
    "never there": (False, False, False, False, "as root starts one"),
    "the supervisor is there": (True, False, True, True, "being started here"),
    "just booted": (False, True, True, True, "being started here"),
    "just booted, never there": (False, True, False, False, "as root starts one"),
    "stopped long ago": (False, False, True, False, "as root starts one"),
    "the supervisor is there, first start": (True, True, False, True, "being started here"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("CORRAL_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("CORRAL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("CORRAL_HOST", raising=False)
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "state/controller").mkdir(parents=True, exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_it_waits_a_moment_where_somebody_starts_it(here, monkeypatch, clock, case):
    kept, booted, known, waits, hint = CASES[case]
    if kept:
        (here / "run/supervisor.pid").write_text(f"{os.getpid()} 1\n")
    if known:
        (here / "state/controller/state.db").touch()
    monkeypatch.setattr(places, "BOOT", float("inf") if booted else 0.0)
    monkeypatch.setattr(clients, "time", clock)
    with pytest.raises(NoController) as caught:
        Client().get("/v1/version")
    assert (clock.slept >= clients.RESTART_TIMEOUT) == waits
    assert bool(clock.slept) == waits
    assert hint in caught.value.hint


def test_one_that_comes_meanwhile_is_used(here, monkeypatch):
    import socket

    (here / "run/supervisor.pid").write_text(f"{os.getpid()} 1\n")
    monkeypatch.setattr(clients, "RESTART_TIMEOUT", 60.0)
    server = socket.socket(socket.AF_UNIX)

    def come():
        time.sleep(0.2)
        server.bind(str(here / "run/controller.sock"))
        server.listen()

    thread = threading.Thread(target=come)
    thread.start()
    try:
        Client().connect().close()
    finally:
        thread.join()
        server.close()
