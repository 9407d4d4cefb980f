"""How far the past is heard: as far as what happens now was, in whatever order a batch brings it."""

import asyncio

import pytest
from nats.aio.msg import Msg

from brevo_sink.order import Live
from shared import bus


def batch(*positions: int) -> list[Msg]:
    return [
        Msg(None, "brevo.0.contact.relink", f"$JS.ACK.BREVO.brevo-sink.1.{position}.{number}.1700000000000000000.0")
        for number, position in enumerate(positions, 1)
    ]  # fmt: skip


async def test_a_batch_delivered_again_in_another_order_counts_up_to_the_last_said_in_it():
    live, heard = Live(bus.connect("nats://127.0.0.1:1", service="test")), []

    async def handler(messages: list[Msg]) -> None:
        heard.append([message.metadata.sequence.stream for message in messages])

    await live.ahead(handler)(batch(9, 3))
    await live.behind(handler)(batch(8, 2))
    with pytest.raises(TimeoutError):  # one of it was said after all that was heard
        await asyncio.wait_for(live.behind(handler)(batch(10, 2)), 0.5)

    assert heard == [[9, 3], [8, 2]]
