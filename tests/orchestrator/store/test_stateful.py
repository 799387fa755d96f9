"""Law: every engine is a dictionary with revisions, whatever the order of calls.

One Hypothesis machine drives all engines beside a model a reader can check by eye;
SQLite is also closed, cut off (as SIGKILL does) and opened again.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from orchestrator.store.base import Compare, Delete, Put
from orchestrator.store.memory import MemoryStore
from orchestrator.store.sqlite import SqliteStore

keys = st.sampled_from(["/a", "/a/1", "/a/2", "/b", "/b/é"])
values = st.binary(max_size=3)
writes = st.lists(
    st.one_of(st.builds(Put, keys, values), st.builds(Delete, keys)),
    max_size=4,
    unique_by=lambda w: w.key,
).map(tuple)


class StoreMachine(RuleBasedStateMachine):
    @initialize()
    def start(self):
        self.folder = Path(tempfile.mkdtemp(prefix="corral-store-"))
        self.loop = asyncio.new_event_loop()
        self.opened = 0
        self.engines = {"memory": MemoryStore(), "sqlite": self.run(self.open())}
        self.model = {}
        self.revision = 0
        self.history = []

    def run(self, awaitable):
        return self.loop.run_until_complete(asyncio.wait_for(awaitable, 300))

    def open(self):
        return SqliteStore.open(self.folder / f"{self.opened}.db")

    @rule(
        guesses=st.lists(st.tuples(keys, st.sampled_from(["right", "zero", "old"])), max_size=2),
        writes=writes,
    )
    def txn(self, guesses, writes):
        compares = []
        for key, guess in guesses:
            version = self.model.get(key, (None, 0))[1]
            compares.append(Compare(key, {"right": version, "zero": 0, "old": version - 1}[guess]))
        failed = [c.key for c in compares if c.version != self.model.get(c.key, (None, 0))[1]]
        if not failed:
            changes = {}
            for write in writes:
                if isinstance(write, Put):
                    changes[write.key] = write.value
                elif write.key in self.model:
                    changes[write.key] = None
            if changes:
                self.revision += 1
                self.history.append((self.revision, changes))
            for key, value in changes.items():
                if value is None:
                    del self.model[key]
                else:
                    self.model[key] = (value, self.revision)
        for name, engine in self.engines.items():
            result = self.run(engine.txn(tuple(compares), writes))
            assert result.ok == (not failed), name
            assert result.revision == self.revision, name
            assert result.failed == (failed[0] if failed else ""), name

    @rule()
    def close_and_open(self):
        self.run(self.engines["sqlite"].close())
        self.engines["sqlite"] = self.run(self.open())

    @rule()
    def cut_off_and_open(self):
        """Copy file and log as a kill would leave them, then go on with the copy."""
        old, self.opened = self.opened, self.opened + 1
        for end in ("", "-wal"):
            shutil.copy(self.folder / f"{old}.db{end}", self.folder / f"{self.opened}.db{end}")
        self.run(self.engines["sqlite"].close())
        self.engines["sqlite"] = self.run(self.open())

    @rule(prefix=st.sampled_from(["/", "/a", "/a/", "/b/", "/c"]))
    def lists(self, prefix):
        wanted = sorted((k, v, r) for k, (v, r) in self.model.items() if k.startswith(prefix))
        for name, engine in self.engines.items():
            snapshot = self.run(engine.list(prefix))
            assert [(e.key, e.value, e.version) for e in snapshot.entries] == wanted, name
            assert snapshot.revision == self.revision, name

    @rule(prefix=st.sampled_from(["/", "/a", "/b/"]), data=st.data())
    def watches(self, prefix, data):
        """The memory engine has seen everything: its watch is the history."""
        after = data.draw(st.integers(0, self.revision))
        wanted = [
            (revision, {k: v for k, v in changes.items() if k.startswith(prefix)})
            for revision, changes in self.history
            if revision > after and any(k.startswith(prefix) for k in changes)
        ]
        assert self.run(self.read(prefix, after, len(wanted))) == wanted

    async def read(self, prefix, after, count):
        found = []
        batches = self.engines["memory"].watch(prefix, after)
        while len(found) < count:
            batch = await anext(batches)
            found.append((batch.revision, {c.key: c.value for c in batch.changes}))
        await batches.aclose()
        return found

    @invariant()
    def gets_agree(self):
        if not hasattr(self, "model"):
            return
        for name, engine in self.engines.items():
            for key in ("/a", "/b/é"):
                entry = self.run(engine.get(key))
                assert ((entry.value, entry.version) if entry else (None, 0)) == self.model.get(
                    key, (None, 0)
                ), name

    def teardown(self):
        if hasattr(self, "loop"):
            for engine in self.engines.values():
                self.run(engine.close())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.folder)


StoreMachine.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStoreMachine = StoreMachine.TestCase
