"""Wakes long polls when a file has grown, whichever process has written to it."""

import asyncio
from collections.abc import Callable

# In seconds; a look at a file's length takes some microseconds.
EVERY = 0.02

Mark = tuple[int, int]


class Bell:
    """Looks at one mark for all who wait, and only while somebody does."""

    def __init__(self, mark: Callable[[], Mark]) -> None:
        self._mark = mark
        self._waiting: dict[asyncio.Future[None], Mark] = {}
        self._task: asyncio.Task[None] | None = None

    async def wait(self, seen: Mark, seconds: float) -> None:
        """Return as soon as the mark is another one, and after so many seconds anyway."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = seen
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            await asyncio.wait([future], timeout=seconds)
        finally:
            del self._waiting[future]

    async def _watch(self) -> None:
        while self._waiting:
            mark = self._mark()
            for future, seen in self._waiting.items():
                if mark != seen and not future.done():
                    future.set_result(None)
            await asyncio.sleep(EVERY)
