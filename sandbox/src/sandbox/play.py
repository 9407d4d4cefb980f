"""Send a day's webhooks as Twilio would, and wait until Brevo has what they say."""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from sandbox.expected import Contact
from sandbox.twilio import Webhook, signed
from sandbox.verify import Sent, State, arrived, differences

CONCURRENCY = 8  # requests at once; Twilio's own is higher, a day's is not
TRY_S = 15.0  # Twilio waits 15 s for an answer; https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides
TRIES_MAX = 7  # some 11 s with the delays between; Twilio makes all of a callback's tries within 15 s
DELAY_MIN_S, DELAY_MAX_S = 0.2, 5.0  # between tries
LOOK_S = 0.2  # between looks at Brevo
STEADY_S = 1.5  # nothing may change for so long once all is there


class NotTakenError(Exception):
    """A webhook was not answered with 2xx, and what to look at."""


class NotEqualError(Exception):
    """Brevo does not hold what was expected; `found` says every difference."""

    def __init__(self, state: State, found: list[str]) -> None:
        super().__init__(f"{len(found)} differences")
        self.state = state
        self.found = found


@dataclass(frozen=True)
class Target:
    """Where the webhooks go, and what Twilio signs them with: the URL it would call, and the auth token."""

    url: str
    public_url: str
    token: str


async def play(webhooks: Iterable[Webhook], target: Target, on_sent: Callable[[], None]) -> list[Sent]:
    """Send all of them, those of one person in order.  Raises NotTakenError."""
    queues: dict[str, list[Webhook]] = {}
    for webhook in webhooks:
        queues.setdefault(webhook.whom, []).append(webhook)
    sent: list[Sent] = []
    turn = asyncio.Semaphore(CONCURRENCY)
    async with httpx.AsyncClient(base_url=target.url, timeout=TRY_S) as client:

        async def send_in_order(queue: Sequence[Webhook]) -> None:
            for webhook in queue:
                async with turn:
                    first_ms = round(time.time() * 1000)
                    await _send(client, webhook, target)
                sent.append(Sent(first_ms, webhook.moments))
                on_sent()

        try:
            async with asyncio.TaskGroup() as group:
                for queue in queues.values():
                    group.create_task(send_in_order(queue))
        except ExceptionGroup as errors:  # not except*: what that raises is a group again, in some Pythons
            refused = errors.subgroup(NotTakenError)
            raise refused.exceptions[0] if refused else errors from None
    return sent


async def _send(client: httpx.AsyncClient, webhook: Webhook, target: Target) -> None:
    """Try until it is taken.  Twilio tries again after 429, 5xx and no answer, never after another 4xx."""
    path, headers = signed(webhook, target.public_url.rstrip("/"), target.token)
    why = ""
    for number in range(TRIES_MAX):
        try:
            answer = await client.post(path, content=webhook.body, headers=headers)
        except httpx.TransportError as error:
            why = type(error).__name__
        else:
            if answer.is_success:
                return
            why = f"HTTP {answer.status_code}"
            if answer.status_code < 500 and answer.status_code != 429:
                break
        await asyncio.sleep(min(DELAY_MIN_S * 2**number, DELAY_MAX_S))
    raise NotTakenError(f"{target.url}{webhook.route} did not take a webhook: {why}")


async def state_of(client: httpx.AsyncClient) -> dict[str, Any]:
    """What the local Brevo holds."""
    answer = await client.get("/_sandbox/state")
    answer.raise_for_status()
    state: dict[str, Any] = answer.json()
    return state


async def wait_until_equal(
    brevo_url: str, expected: Sequence[Contact], *, deadline_s: float, on_look: Callable[[int], None]
) -> State:
    """Return Brevo's state once it is what was expected, and stays so.  Raises NotEqualError after the deadline.

    `on_look` hears how many of the expected events are there.
    """
    end = time.monotonic() + deadline_s
    async with httpx.AsyncClient(base_url=brevo_url, timeout=TRY_S) as client:
        while True:
            state = await state_of(client)
            on_look(arrived(state, expected))
            if not differences(state, expected):
                await asyncio.sleep(STEADY_S)
                state = await state_of(client)
                if not (found := differences(state, expected)):
                    return state
                raise NotEqualError(state, found)
            if time.monotonic() > end:
                raise NotEqualError(state, differences(state, expected))
            await asyncio.sleep(LOOK_S)
