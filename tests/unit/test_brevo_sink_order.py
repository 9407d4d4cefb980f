"""The order of relinks and deletions: how far the past is heard, and what is said of one that cannot be done."""

import asyncio

import pytest
from nats.aio.msg import Msg

from brevo_sink.alone import waiting
from brevo_sink.desk import Item
from brevo_sink.order import Live
from shared import bus
from shared.command import ContactDelete


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


def test_a_person_is_told_of_what_waits_for_a_minute_and_of_the_first_why():
    def item(position: int, heard: float) -> Item:
        return Item(ContactDelete(id="d", ext_id="tajo-a", version=1), position, None, heard=heard)

    put_off = [(0.0, "503", item(9, 20.0)), (0.0, "500", item(7, 30.0)), (0.0, "500", item(3, 60.0))]

    assert waiting(put_off, 79.0) == ""
    said = "relinks and deletions that Brevo does not carry out: "
    assert waiting(put_off, 85.0) == f"{said}1, the first BREVO:9 for 65 s (503)"
    assert waiting(put_off, 95.0) == f"{said}2, the first BREVO:7 for 65 s (500)"
