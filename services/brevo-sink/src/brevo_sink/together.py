"""One at a time, and those who come meanwhile together: one transaction and one flush serve them all."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Together(Generic[T]):
    """What many do at once, done for all of them by whoever has the turn.

    Where it fails, it fails for whoever had the turn, and each of the others tries again: what is done must bear that.
    """

    def __init__(self, do: Callable[[Sequence[T]], Awaitable[None]], most: int) -> None:
        """`do` gets at least one and at most `most`, in the order they came."""
        self._do = do
        self._most = most
        self._turn = asyncio.Lock()
        self._waiting: dict[Hashable, T] = {}

    async def __call__(self, key: Hashable, one: T) -> None:
        """Return once it is done.  Nobody else has this key meanwhile."""
        self._waiting[key] = one
        try:
            async with self._turn:
                if key in self._waiting:  # else it was done with another's
                    keys = list(self._waiting)[: self._most]
                    await self._do([self._waiting[one] for one in keys])
                    for done in keys:
                        self._waiting.pop(done, None)
        finally:
            self._waiting.pop(key, None)
