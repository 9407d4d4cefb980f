"""One call to Brevo, as it is seen on the wire."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from brevo_sink.brevo import ANSWER_BYTES_MAX, Brevo, Lost, NotSent, Reply
from brevo_sink.budget import Budget
from brevo_sink.metrics import Metrics

ANSWER = b'HTTP/1.1 201 Created\r\ncontent-length: 8\r\ncontent-type: application/json\r\n\r\n{"id":1}'


PART = 2**22  # bytes of a request that are read at once, slowly


class Wire:
    """Takes requests and keeps them; answers what it is told, whole or bit by bit, and hangs up where that is no ANSWER."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.answer = ANSWER
        self.drip_s = 0.0  # between two bytes of it
        self.read_s = 0.0  # between two parts of a request
        self.connections = 0
        self.cut = b""  # of the last request, that broke off
        self.ended = asyncio.Event()

    async def __call__(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [
                    line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
                ]
                body = await self._body(reader, int(lengths[0].partition(b":")[2])) if lengths else b""
                self.requests.append((head, body))
                for bit in [self.answer] if not self.drip_s else [bytes([one]) for one in self.answer]:
                    writer.write(bit)
                    await writer.drain()
                    await asyncio.sleep(self.drip_s)
                if self.answer != ANSWER:
                    break
        except asyncio.IncompleteReadError as error:
            self.cut = error.partial
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.ended.set()

    async def _body(self, reader, length: int) -> bytes:
        body = b""
        while self.read_s and length - len(body) > PART:
            body += await reader.readexactly(PART)
            await asyncio.sleep(self.read_s)
        return body + await reader.readexactly(length - len(body))


@asynccontextmanager
async def calling(may=lambda: True, timeout_s=20.0):
    wire = Wire()
    server = await asyncio.start_server(wire, "127.0.0.1", 0)
    async with server:
        brevo = Brevo(
            url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v3", api_key="key",
            budget=Budget(1), metrics=Metrics(CollectorRegistry()), log_calls=False, may=may,
            timeout_s=timeout_s,
        )  # fmt: skip
        try:
            yield wire, brevo
        finally:
            await brevo.close()


async def test_a_call_says_all_that_http_asks_for_and_keeps_its_connection():
    async with calling() as (wire, brevo):
        made = await brevo.call("POST", "/contacts", json={"ext_id": "tajo-1", "attributes": {"NAME": "Zoë"}})
        again = await brevo.call("GET", "/events", params=[("limit", "5"), ("offset", "0")])

    assert isinstance(made, Reply)
    assert (made.status, made.body) == (201, b'{"id":1}')
    assert isinstance(again, Reply)
    (head, body), (asked, nothing) = wire.requests
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "post /v3/contacts http/1.1"
    assert {"api-key: key", "accept: application/json", "content-type: application/json"} <= set(lines)
    assert sum(line.startswith("host: 127.0.0.1:") for line in lines) == 1
    assert body.decode() == '{"ext_id":"tajo-1","attributes":{"NAME":"Zoë"}}'
    assert asked.decode().startswith("GET /v3/events?limit=5&offset=0 HTTP/1.1\r\n")
    assert nothing == b""
    assert wire.connections == 1


@pytest.mark.parametrize(("method", "body"), [("POST", {"ext_id": "tajo-1"}), ("DELETE", None)])
async def test_no_byte_leaves_where_the_lease_is_lost_meanwhile(method, body):
    async with calling(may=lambda: False) as (wire, brevo):
        result = await brevo.call(method, "/contacts", json=body)
        await wire.ended.wait()

    assert result == NotSent("the lease is not ours")
    assert wire.connections == 1
    assert (wire.requests, wire.cut) == ([], b"")


async def test_an_answer_that_breaks_off_may_have_taken_effect_and_the_next_call_is_made():
    async with calling() as (wire, brevo):
        wire.answer = ANSWER[:-4]
        lost = await brevo.call("POST", "/contacts", json={})
        wire.answer = ANSWER
        made = await brevo.call("POST", "/contacts", json={})

    assert lost == Lost("RemoteProtocolError")
    assert isinstance(made, Reply)


async def test_an_answer_that_comes_bit_by_bit_is_given_up_in_the_time_an_answer_has():
    async with calling(timeout_s=1.0) as (wire, brevo):
        wire.drip_s = 0.1  # of more than a hundred bytes: no wait for one of them is long
        began = time.monotonic()
        lost = await brevo.call("POST", "/contacts", json={})
        took_s = time.monotonic() - began
        wire.drip_s = 0.0
        made = await brevo.call("POST", "/contacts", json={})

    assert lost == Lost("ReadTimeout")
    assert 1.0 <= took_s < 5.0
    assert isinstance(made, Reply)


async def test_what_took_long_to_leave_has_the_whole_time_for_its_answer():
    """As an import over a slow line."""
    async with calling(timeout_s=4.0) as (wire, brevo):
        wire.read_s, wire.drip_s = 0.8, 2.0 / len(ANSWER)
        began = time.monotonic()
        made = await brevo.call("POST", "/contacts/import", json={"fileBody": "x" * 4 * PART})
        took_s = time.monotonic() - began

    assert isinstance(made, Reply)
    assert took_s > 4.0


async def test_an_answer_without_end_is_given_up_and_not_held():
    async with calling() as (wire, brevo):
        wire.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n" + bytes(ANSWER_BYTES_MAX + 1)
        lost = await brevo.call("POST", "/contacts", json={})
        wire.answer = ANSWER
        made = await brevo.call("POST", "/contacts", json={})

    assert lost == Lost("ReadError")
    assert isinstance(made, Reply)


async def test_where_nobody_listens_nothing_was_sent():
    async with calling() as (_, brevo):
        pass
    assert await brevo.call("POST", "/contacts", json={}) == NotSent("ConnectError")
