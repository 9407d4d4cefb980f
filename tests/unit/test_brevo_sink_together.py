"""Those who come while others are served are served together."""

import asyncio

import pytest

from brevo_sink.together import Together


class Desk:
    """Serves, when it is let; notes with whom."""

    def __init__(self) -> None:
        self.served: list[list[str]] = []
        self.open = asyncio.Event()
        self.failing = 0

    async def serve(self, several):
        await self.open.wait()
        if self.failing:
            self.failing -= 1
            raise OSError("not now")
        self.served.append(list(several))


async def coming(together, *names):
    tasks = [asyncio.create_task(together(name, name)) for name in names]
    for _ in range(len(names) + 2):
        await asyncio.sleep(0)
    return tasks


async def test_the_first_is_served_at_once_and_who_comes_meanwhile_in_as_few_turns_as_may_be():
    desk = Desk()
    together = Together(desk.serve, most=3)

    tasks = await coming(together, *"abcdefg")
    desk.open.set()
    await asyncio.gather(*tasks)

    assert desk.served == [["a"], ["b", "c", "d"], ["e", "f", "g"]]


async def test_where_it_fails_whoever_had_the_turn_hears_it_and_the_others_try_again():
    desk = Desk()
    desk.failing = 1
    together = Together(desk.serve, most=10)
    first = await coming(together, "a")
    others = await coming(together, "b", "c")

    desk.open.set()

    with pytest.raises(OSError, match="not now"):
        await first[0]
    await asyncio.gather(*others)
    assert desk.served == [["b", "c"]]


async def test_who_is_cancelled_is_served_no_more_and_takes_nobody_along():
    desk = Desk()
    together = Together(desk.serve, most=10)
    first, second, third = await coming(together, "a", "b", "c")
    second.cancel()
    first.cancel()
    await asyncio.wait([first, second])

    desk.open.set()
    await third

    assert desk.served == [["c"]]
