"""Looking for events at Brevo, where it has more of them than one look can read."""

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from brevo_sink.brevo import Brevo
from brevo_sink.budget import Budget
from brevo_sink.desk import Item
from brevo_sink.doubt import LOOKS, Doubts
from brevo_sink.gate import Gate
from brevo_sink.metrics import Metrics
from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.events import Event
from sandbox.limits import UNLIMITED
from shared.command import EventTrack

BEGIN = datetime(2026, 11, 1, 10, tzinfo=UTC)
DAYS, A_DAY = 10, 11_000  # more than ten pages of 10,000


@pytest.fixture
async def brevo():
    sandbox = BrevoSandbox(limits=UNLIMITED)
    async with serving(sandbox) as url:
        sandbox.url = f"{url}/v3"
        yield sandbox


def there(day: int, key: str) -> Event:
    return Event("X", BEGIN + timedelta(days=day), 1, {"ext_id": "a"}, {"idempotency_key": key}, 0)


def asked(day: int, key: str) -> Item:
    time = (BEGIN + timedelta(days=day)).isoformat()
    return Item(EventTrack(id=key, ext_id="a", name="X", time=time), 1, None)


async def test_among_more_events_than_one_look_can_read_what_arrived_is_found_and_the_rest_is_absent(brevo):
    metrics = Metrics(CollectorRegistry())
    client = Brevo(
        url=brevo.url, api_key=brevo.api_key, budget=Budget(1.0), metrics=metrics, timeout_s=20, log_calls=False
    )  # fmt: skip
    brevo.event_log.kept += [there(day, f"{day}/{n}") for day in range(DAYS) for n in range(A_DAY)]
    doubts = Doubts(client, Gate(metrics), look_s=0)
    for item in (asked(0, "0/0"), asked(9, "9/10999"), asked(9, "never"), asked(4, "4/5000")):
        doubts.add(item)

    found, absent = [], []
    for _ in range(LOOKS):
        some, none = await doubts.look()
        found += some
        absent += none
    await client.close()

    assert sorted(item.command.id for item in found) == ["0/0", "4/5000", "9/10999"]
    assert [item.command.id for item in absent] == ["never"]
    assert len(doubts) == 0
