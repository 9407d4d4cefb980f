"""The day on the wire: signed, in order for each person, tried again as Twilio does."""

from contextlib import asynccontextmanager
from urllib.parse import parse_qsl

import httpx
import pytest
import uvicorn
from twilio.request_validator import RequestValidator

from sandbox.app import listening, serving
from sandbox.brevo import BrevoSandbox
from sandbox.day import webhooks
from sandbox.expected import CONTACTS
from sandbox.play import NotEqualError, NotTakenError, Target, play, wait_until_equal

PUBLIC_URL, TOKEN = "https://flex.example.com", "a" * 32


class Receiver:
    """Stands where ingest stands: checks each signature with the official package, and keeps what it took."""

    def __init__(self, *, refusals: int = 0, with_status: int = 503) -> None:
        self.taken: list[tuple[str, bytes]] = []
        self.refusals, self.with_status = refusals, with_status

    async def __call__(self, scope, receive, send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        query = scope["query_string"].decode()
        url = PUBLIC_URL + scope["path"] + (f"?{query}" if query else "")
        form = headers["content-type"] != "application/json"
        params = dict(parse_qsl(body.decode(), keep_blank_values=True)) if form else body.decode()
        status = 204 if RequestValidator(TOKEN).validate(url, params, headers["x-twilio-signature"]) else 403
        if self.refusals:
            self.refusals, status = self.refusals - 1, self.with_status
        if status == 204:
            self.taken.append((scope["path"], body))
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    @asynccontextmanager
    async def target(self):
        config = uvicorn.Config(self, lifespan="off", log_level="warning", ws="none")
        async with listening(config) as url:
            yield Target(url, PUBLIC_URL, TOKEN)


async def test_the_whole_day_is_taken_and_in_order_for_each_person():
    receiver = Receiver(refusals=3)

    async with receiver.target() as target:
        counted: list[None] = []
        sent = await play(webhooks(), target, lambda: counted.append(None))

    day = webhooks()
    assert len(sent) == len(counted) == len(receiver.taken) == len(day)
    for whom in {webhook.whom for webhook in day}:
        theirs = [(webhook.route, webhook.body) for webhook in day if webhook.whom == whom]
        assert [taken for taken in receiver.taken if taken in theirs] == theirs


async def test_a_refused_signature_ends_the_day():
    async with Receiver().target() as target:
        wrong = Target(target.url, target.public_url, "another token")

        with pytest.raises(NotTakenError, match="HTTP 403"):
            await play(webhooks(), wrong, lambda: None)


async def test_a_4xx_is_not_tried_again_and_a_429_is():
    limited, refusing = Receiver(refusals=1, with_status=429), Receiver(refusals=1, with_status=400)

    async with limited.target() as target:
        await play(webhooks()[:1], target, lambda: None)
    async with refusing.target() as target:
        with pytest.raises(NotTakenError, match="HTTP 400"):
            await play(webhooks()[:1], target, lambda: None)

    assert (len(limited.taken), len(refusing.taken)) == (1, 0)


async def test_what_never_comes_is_told_after_the_deadline():
    looked: list[int] = []
    async with serving(BrevoSandbox()) as url:
        with pytest.raises(NotEqualError) as raised:
            await wait_until_equal(url, CONTACTS, deadline_s=0.3, on_look=looked.append)

    assert len(raised.value.found) == len(CONTACTS)
    assert set(looked) == {0}


async def test_state_that_is_equal_is_returned_once_it_is_steady():
    async with serving(BrevoSandbox()) as url:
        state = await wait_until_equal(url, (), deadline_s=0, on_look=lambda _: None)

        async with httpx.AsyncClient(base_url=url) as client:
            assert state == (await client.get("/_sandbox/state")).json()
