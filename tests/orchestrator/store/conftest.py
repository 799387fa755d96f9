"""Every engine under one fixture: what the conformance suite asks, all must answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.store.memory import MemoryStore
from orchestrator.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from orchestrator.store.base import Store

KEEP = 50  # batches the engines under test remember


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        engine: Store = MemoryStore(keep=KEEP)
    else:
        engine = await SqliteStore.open(tmp_path / "state.db", keep=KEEP)
    yield engine
    await engine.close()
