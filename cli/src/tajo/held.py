"""Brevo itself, held against what a plan says that it shall hold."""

import os
from collections.abc import Callable, Sequence

from shared import bus, receipt
from shared.event import epoch_ms, rfc3339
from shared.login import login_as
from shared.past import past
from shared.replay import Plan
from shared.topology import RECEIPTS
from tajo import drifted, readback
from tajo.broker import connected
from tajo.drifted import Drift
from tajo.installation import Installation, calling_brevo
from tajo.named import SUBJECTS, hear, names
from tajo.replay import customers

SHARE = 0.25  # of our calls: the sink, in a process of its own, goes on meanwhile
RECENT_MS = 10 * 60 * 1000  # events of so short ago may be on their way, or not listed yet at Brevo

OnLook = Callable[[str, int, int], None]
"""Told of "receipts", "contacts" or "events": how many of how many are read."""


async def read_back(
    url: str, installation: Installation, plan: Plan, expected: bytes, on_look: OnLook
) -> Drift:
    """What Brevo holds otherwise, though it was told so and the plan does not change it.

    Raises ReadBackError, SettingsError, nats' errors and OSError.
    """
    found = readback.Found(names(await _hops(url, on_look), plan))
    until_ms = plan.asked.at_ms - RECENT_MS
    called, since_ms = _events(expected, until_ms)
    until = rfc3339(until_ms)
    try:
        async with calling_brevo(installation, share=SHARE) as brevo:
            await readback.read_contacts(brevo, found, on_look=on_look)
            await readback.read_events(
                brevo, found, names=called, since=rfc3339(since_ms), until=until, on_look=on_look
            )
        differences = drifted.unexplained(readback.compare(customers(expected), found, until=until), plan)
        again = drifted.mended_by(differences)
        return Drift(tuple(differences), again, found.contacts, found.events, until)
    finally:
        found.close()


def _events(expected: bytes, until_ms: int) -> tuple[Sequence[str], int]:
    """How those that shall be there are called, and when the first of them happened."""
    called: set[str] = set()
    since_ms = until_ms
    for one in customers(expected):
        for _, name, time in one.events:
            called.add(name)
            since_ms = min(since_ms, epoch_ms(time))
    return sorted(called), since_ms


async def _hops(url: str, on_look: OnLook) -> dict[str, str]:
    async with connected(url) as connection:
        last = (await connection.jetstream(timeout=5).stream_info(RECEIPTS.name)).state.last_seq
    broker = bus.connect(url, service="tajo", login=login_as("tajo", url, os.environ))
    await broker.connect()
    hops: dict[str, str] = {}
    try:
        async for messages in past(broker, RECEIPTS.name, after=0, to=last, subjects=SUBJECTS):
            for one in messages:
                hear(hops, receipt.from_body(one.data))
            on_look("receipts", messages[-1].metadata.sequence.stream, last)
    finally:
        await broker.stop()
    return hops
