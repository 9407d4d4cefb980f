"""The whole way, as one would run it: signed webhooks in any order, twice, from two sources; Brevo exact at the end."""

import asyncio
import json
import random
import shutil
import time
from collections import Counter, defaultdict
from pathlib import Path

import httpx
import nats
import pytest
from openapi_schema_validator import OAS31Validator
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.limits import Limits
from sandbox.load import paced, send
from sandbox.play import Target
from sandbox.traffic import CHANNELS, Person, compare, schedule, traffic
from sandbox.twilio import ACCOUNT_SID

TOKEN, PUBLIC = "token-of-twilio", "https://hooks.example.com"
FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
SPEC = YAML(typ="safe").load(Path(__file__).parent.parent / "data/brevo/openapi-subset.yaml")
CALLS = "tajo_brevo_sink_calls_total"


class Recording(BrevoSandbox):
    """The local Brevo, with every body kept."""

    def answer(self, asked, headers):
        self.__dict__.setdefault("bodies", []).append((asked.method, asked.path, asked.body))
        return super().answer(asked, headers)


async def brevo_has(brevo: BrevoSandbox, people: list[Person], seconds: float) -> None:
    """Return once every expected event arrived and the last contacts are told; fails with what is missing."""
    deadline = time.monotonic() + seconds
    while not (found := compare(brevo, people)).nothing:
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)


def check_bodies(brevo: Recording) -> None:
    """Every body that was sent fits Brevo's published schema."""
    validators = {
        path: OAS31Validator(
            {
                **SPEC["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"],
                "components": SPEC["components"],
            }
        )
        for path in ("/contacts", "/events/batch")
    }
    checked = Counter()
    for method, path, body in brevo.bodies:
        if method == "POST" and path in validators:
            validators[path].validate(json.loads(body))
            checked[path] += 1
    assert checked["/contacts"]
    assert checked["/events/batch"]


async def stream_state(environment: dict[str, str], name: str):
    connection = await nats.connect(environment["TAJO_NATS_URL"])
    try:
        return (await connection.jetstream().stream_info(name)).state
    finally:
        await connection.close()


def scraped(tajo) -> Counter:
    """Every sample of /metrics, by its name, summed over labels and services."""
    found = Counter()
    for url in (tajo.url, *tajo.others):
        for metric in text_string_to_metric_families(httpx.get(f"{url}/metrics").text):
            for sample in metric.samples:
                found[sample.name] += sample.value
                if sample.name == CALLS and not sample.labels["status"].isdigit():
                    found["unanswered"] += sample.value
    return found


async def lag_is_gone(tajo) -> None:
    """Return once the services say that no durable is behind, which they look at now and then."""
    deadline = time.monotonic() + 60
    while (said := await asyncio.to_thread(scraped, tajo))["tajo_consumer_pending"] or said[
        "tajo_consumer_ack_pending"
    ]:
        assert time.monotonic() < deadline, said
        await asyncio.sleep(0.2)


def check_metrics(said: Counter, brevo: Recording, *, webhooks: int, stored: int) -> None:
    """What the services counted is what was sent, what the log has, and what Brevo was asked."""
    assert said["tajo_ready"] == 4
    assert said["tajo_lease_held"] == 3
    assert said["tajo_ingest_webhooks_total"] == said["tajo_ingest_seconds_count"] == webhooks
    assert said["tajo_ingest_events_total"] >= stored
    assert said["tajo_mapper_raw_events_total"] == said["tajo_mapper_sequence"] == stored
    assert said["tajo_mapper_batch_seconds_count"] > 0
    # Of a call that was not answered, as when a connection ends just then, nobody knows whether Brevo was asked.
    assert said[CALLS] - said["unanswered"] <= len(brevo.bodies) <= said[CALLS]
    assert said["unanswered"] < 5
    assert said["tajo_brevo_sink_latency_seconds_count"] == 0  # it is all history: nobody waits for it
    assert said["tajo_brevo_sink_calls_max"] > 0
    assert said["tajo_brevo_sink_in_doubt"] == said["tajo_brevo_sink_paused"] == 0


def settings(brevo_url: str, brevo: BrevoSandbox) -> dict[str, str]:
    return {
        "TAJO_PUBLIC_URL": PUBLIC, "TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "BREVO_API_KEY": brevo.api_key, "TAJO_BREVO_URL": f"{brevo_url}/v3", "TAJO_BREVO_RATE_FRACTION": "1",
    }  # fmt: skip


async def test_2000_webhooks_twice_shuffled_and_from_two_sources_are_each_told_once(everything):
    dice = random.Random(2026)
    people, events = traffic(2000, dice)
    brevo = Recording(limits=FAST)
    async with serving(brevo) as url:
        tajo = everything(**settings(url, brevo))
        await asyncio.to_thread(tajo.start, ready=True)

        statuses = await send(schedule(events, 800, dice), Target(tajo.url, PUBLIC, TOKEN), turn=paced(400))
        await brevo_has(brevo, people, 60)
        log, dead = (
            await stream_state(tajo.environment, "TWILIO"),
            await stream_state(tajo.environment, "DEAD"),
        )
        await lag_is_gone(tajo)
        said = await asyncio.to_thread(scraped, tajo)
        errors = await asyncio.to_thread(tajo.end)

    check_metrics(said, brevo, webhooks=statuses.total(), stored=log.messages)
    assert set(statuses) <= {200, 204}
    assert log.messages == len(events)
    assert dead.messages == 0
    assert not brevo.orphans
    assert len(brevo.contacts.by_id) == len(people)
    assert all(brevo.contact(email_id=person.email).list_ids == {32} for person in people)
    check_bodies(brevo)
    assert b"Traceback" not in errors


@pytest.mark.parametrize("lost", ["nothing", "mapper"])
async def test_everything_stopped_mid_way_and_started_again_loses_and_doubles_nothing(everything, lost):
    dice = random.Random(7)
    people, events = traffic(800, dice)
    brevo = Recording(limits=FAST)
    async with serving(brevo) as url:
        tajo = everything(**settings(url, brevo))
        await asyncio.to_thread(tajo.start, ready=True)

        sending = asyncio.create_task(
            send(schedule(events, 800, dice), Target(tajo.url, PUBLIC, TOKEN), turn=paced(400))
        )
        seen = 0
        for _ in range(2):
            while len(brevo.events) < seen + 60:  # noqa: ASYNC110 - two sides of one wire
                await asyncio.sleep(0.02)
            await asyncio.to_thread(tajo.end)
            seen = len(brevo.events)  # not when it is ready again: it may have told all by then
            shutil.rmtree(Path(tajo.environment["TAJO_DATA_DIR"]) / lost, ignore_errors=True)
            await asyncio.to_thread(tajo.start, ready=True)
        statuses = await sending
        await brevo_has(brevo, people, 60)
        log = await stream_state(tajo.environment, "TWILIO")
        errors = await asyncio.to_thread(tajo.end)

    assert set(statuses) <= {0, 200, 204, 503}
    assert statuses[0] > 0
    assert log.messages == len(events)
    assert not brevo.orphans
    assert b"Traceback" not in errors


def test_the_traffic_reaches_what_it_is_meant_to():
    people, events = traffic(2000, random.Random(2026))
    types = Counter(event.type for event in events)
    by_channel = defaultdict(set)
    for person in people:
        for _, channel in person.starts:
            by_channel[channel].add(person.number)

    assert {"task.canceled", "task.transfer-completed", "reservation.wrapup", "task.completed"} <= set(types)
    assert all(len(by_channel[channel]) > 20 for channel in CHANNELS)
