"""The simulated nodes' process: ``python -m tests.bench.thousand.agents FOLDER COUNT``.

Says ``ready``; then one command a line on its standard input: ``kill NAME``. Its end ends it.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

from tests.fakes.light import Fleet


def names(count: int) -> list[str]:
    return [f"n{number:04d}" for number in range(1, count + 1)]


async def main(folder: Path, count: int) -> None:
    async with Fleet(folder, names(count)) as fleet:
        gc.freeze()
        print("ready", flush=True)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        while line := (await reader.readline()).decode().split():
            assert line[0] == "kill"
            fleet.kill(line[1])
            print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
