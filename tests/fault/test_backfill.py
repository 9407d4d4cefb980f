"""A backfill from a Twilio at its worst, the poller killed in it: at the end Brevo holds each event once."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import nats
import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.limits import Limits
from sandbox.rest import LIMITS, TwilioSandbox
from sandbox.traffic import compare, conversations, traffic
from sandbox.twilio import ACCOUNT_SID

TOKEN, SINCE = "token-of-twilio", "2026-11-18"
PRODUCTS = ("FLEX", "TASKROUTER", "CONVERSATIONS", "EVENTS")
SERVICES = ("mapper", "brevo-sink", "poller")
FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
KILLED_AT = (0.25, 0.6)  # of what the backfill will store
DRAIN_S, LOOK_S = 300.0, 0.5
SLOW_S = 0.5

CONFIG = """\
connectors:
  twilio_flex:
    poller: {interval_s: 1, look_back_s: 0, overlap_s: 60, rate_fraction: 1.0, resources: [tasks, conversations, open_tasks, workers]}
"""


def at_its_worst() -> list[Fault]:
    """429 in bursts, 500s, connections cut before and after the answer, slow pages."""
    return [
        *(Fault("status", status=429, path="/twilio", every=149 + n, times=None) for n in range(3)),
        Fault("status", status=500, path="/twilio", every=83, times=None),
        Fault("reset", path="/twilio", every=127, times=None),
        Fault("reset_after_apply", path="/twilio", every=131, times=None),
        Fault("latency", path="/twilio", every=61, times=None, seconds=SLOW_S),
    ]


async def kinds_in_log(url: str) -> tuple[int, Counter]:
    """How many raw events, and how many of each type."""
    connection = await nats.connect(url)
    try:
        info = await connection.jetstream().stream_info("TWILIO", subjects_filter=">")
        of_type: Counter = Counter()
        for subject, count in (info.state.subjects or {}).items():
            of_type[".".join(subject.split(".")[3:])] += count
        return info.state.messages, of_type
    finally:
        await connection.close()


def asked(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tajo", "connectors", "sync", "twilio-flex", "--type", "full", "--since", SINCE],
        env={**os.environ, "TAJO_NATS_URL": url, "COLUMNS": "120"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.timeout(1200)  # of `make fault`; here it is half a minute
async def test_a_backfill_from_a_twilio_at_its_worst_tells_brevo_each_event_once(
    service, nats_server, reliability, pytestconfig, tmp_path
):
    dice = random.Random(time.time_ns())
    people, events = traffic(pytestconfig.getoption("--backfill-events"), dice)
    contacts = sum(len(person.starts) for person in people)
    spoken = sum(channel != "voice" for person in people for _, channel in person.starts)
    made = conversations(
        people, contacts, max(pytestconfig.getoption("--backfill-conversations") - spoken, 0)
    )
    closing_s = max(event.time_ms for event in events) / 1000 + 60
    twilio = TwilioSandbox(
        token=TOKEN, events=events, conversations=made, faults=at_its_worst(), shuffled=True,
        null_attributes=True, clock=lambda: closing_s,
    )  # fmt: skip
    brevo = BrevoSandbox(limits=FAST)
    shipped = (pytestconfig.rootpath / "config/tajo.yaml").read_text()
    config = tmp_path / "tajo.yaml"
    config.write_text(
        CONFIG
        + shipped[shipped.index("    lists:") : shipped.index("    debug:")]
        + shipped[shipped.index("field_mapping:") :]
    )
    stored = len(events) + 4 * len(made)  # a conversation began, was closed, and two took part
    async with serving(brevo, twilio) as url:
        told = {
            "TAJO_NATS_URL": nats_server.url, "TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
            "BREVO_API_KEY": brevo.api_key, "TAJO_BREVO_URL": f"{url}/v3", "TAJO_BREVO_RATE_FRACTION": "1",
            "TAJO_CONFIG": str(config),
            **{f"TAJO_TWILIO_{name}_URL": f"{url}/twilio/{name.lower()}" for name in PRODUCTS},
        }  # fmt: skip
        services = {name: service(name, **told) for name in SERVICES}
        for one in services.values():
            await asyncio.to_thread(one.start, ready=True)
        began = time.monotonic()
        command = asked(nats_server.url)
        for share in KILLED_AT:
            while (await kinds_in_log(nats_server.url))[0] < share * stored:
                assert command.poll() is None
                await asyncio.sleep(0.02)
            services["poller"].end(signal.SIGKILL)
            services["poller"].start()
        out, err = await asyncio.to_thread(command.communicate, timeout=900)
        took_s = time.monotonic() - began
        assert command.returncode == 0, out + err
        for _ in range(round(DRAIN_S / LOOK_S)):
            found = compare(brevo, people)
            if found.nothing:
                break
            await asyncio.sleep(LOOK_S)
        drained_s = time.monotonic() - began - took_s
        in_log, of_type = await kinds_in_log(nats_server.url)
        errors = b"".join([await asyncio.to_thread(one.end) for one in services.values()])

    refused = sum(count for what, count in twilio.answered.items() if what.endswith((" 429", " 500", " 0")))
    peaks = {name: twilio.peak(name) for name in LIMITS}
    reliability.add(
        "A backfill from a Twilio at its worst",
        f"""
`tajo connectors sync` of {len(events):,} TaskRouter events and {len(made):,} conversations took {took_s:,.0f} s and
{twilio.answered.total():,} calls, of which {refused:,} were refused or cut by request, others came {SLOW_S} s late, pages in no
order, attributes null in lists.  The poller was killed with SIGKILL {len(KILLED_AT)} times in it.  Brevo had everything {drained_s:.1f} s
after: **{found.lost.total()} lost, {found.doubled.total()} doubled, {len(found.wrong)} contacts wrong** of
{len(brevo.events):,} events and {len(people):,} contacts.  {in_log:,} raw events are in the log.

The most calls in any one second, as Twilio counts them:
""",
        ("limit", "calls a second allowed", "the most there were"),
        [(name, LIMITS[name], peak) for name, peak in peaks.items() if peak],
    )
    assert found.nothing, found
    assert all(peak <= LIMITS[name] for name, peak in peaks.items()), peaks
    assert (
        of_type["conversations.conversation.added"]
        == of_type["conversations.conversation.closed"]
        == len(made)
    )
    assert of_type["conversations.participant.added"] == 2 * len(made)
    assert sum(
        n for name, n in of_type.items() if name.startswith("taskrouter") and "snapshot" not in name
    ) == len(events)
    assert not brevo.orphans
    assert b"Traceback" not in errors
