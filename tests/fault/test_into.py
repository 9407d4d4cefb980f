"""`tajo replay --into`, killed again and again: of each customer the other account holds what was reached live."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path

import nats
import pytest

from ingest.sources import Request, read
from mapper.story import Contact as Told
from mapper.story import tell
from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.contact import Contact
from sandbox.events import Event
from sandbox.limits import Limits
from sandbox.lives import Lives, lives, webhooks
from sandbox.twilio import ACCOUNT_SID, TaskRouterEvent
from shared import trace
from shared.command import ContactRelink, from_body
from shared.connector_file import load
from shared.event import from_message, to_message
from shared.message import MSG_ID, Message
from shared.publish import NotPublishedError, publish
from shared.topology import BREVO_SINK, BREVO_SINK_PAST, MAPPER

ROOT = Path(__file__).parents[2]
FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
SHUFFLED, REPEATED = (
    40,
    0.3,
)  # places that a webhook moves by; share of the repetitions that the log holds, too
GROUP = 500  # raw events said at once
KILLED_AT = (0.0, 0.02, 0.5, 1.02, 1.5)  # so far: contacts from 0 to 1, then events from 1 to 2
SHOWN = 5  # of what is wrong
AFTER_S = 0.5  # at most, from then to the kill
LIVE_S, INTO_S = 1200.0, 600.0  # at most, until Brevo has everything; of the last run
TOLD = {
    "task.created": ("SUPPORT_REQUESTED",),
    "task.canceled": ("SUPPORT_ABANDONED",),
    "task.completed": ("SUPPORT_RESOLVED", "CONVERSATION_ENDED"),
}
MORE_IS_HEARD = {
    "agent",
    "queue",
    "duration_seconds",
    "handle_seconds",
}  # properties: they are as known when sent


def raw(made: Lives, dice: random.Random) -> Iterator[Message]:
    """What the log holds, out of order, as ingest reads it; what it holds twice came later than a broker notices."""
    heard: Counter[str] = Counter()
    for make in webhooks(made, SHUFFLED, dice):
        webhook = make()
        asked = Request(webhook.route, webhook.body, 0, ACCOUNT_SID, keep_bodies=False)
        for event in read(asked).events:
            if heard[event.id] and dice.random() > REPEATED:
                continue
            heard[event.id] += 1
            message = to_message(event, trace.start())
            message.headers[MSG_ID] = f"{event.id}/{heard[event.id]}"
            yield message


async def play(url: str, messages: Iterator[Message]) -> int:
    """Say all of it, however busy the machine; how many that is."""
    count = 0
    connection = await nats.connect(url)
    while group := list(islice(messages, GROUP)):
        count += len(group)
        said = False
        while not said:
            with suppress(NotPublishedError):
                await publish(connection, group)
                said = True
    await connection.close()
    return count


def names(made: Lives) -> Counter[str]:
    """How many events of each name Brevo shall hold, counted by the definitions and not by our code."""
    tasks = [one.type for one in made.happened if isinstance(one, TaskRouterEvent)]
    surveys = sum(getattr(one, "route", "") == "/webhooks/survey" for one in made.happened)
    return Counter(name for type_ in tasks for name in TOLD.get(type_, ())) + Counter(CSAT_SUBMITTED=surveys)


def shared_phones(made: Lives) -> dict[str, str]:
    """By task, the phone that its customer shares with another."""
    found = {}
    for one in made.happened:
        if isinstance(one, TaskRouterEvent):
            said = one.fields["task_attributes"]
            if (phone := said.get("customerAddress") or said["from"]) in made.shared:
                found[one.fields["task_sid"]] = phone
    return found


async def renamed(url: str) -> dict[str, str]:
    """Names at Brevo that a customer has no more → the next name."""
    connection = await nats.connect(url)
    heard = await connection.jetstream().pull_subscribe("brevo.*.contact.relink", stream="BREVO")
    found: dict[str, str] = {}
    while (await heard.consumer_info()).num_pending:
        for message in await heard.fetch(GROUP, timeout=10):
            said = from_body(message.data)
            assert isinstance(said, ContactRelink)
            found.pop(said.ext_id, None)
            found[said.was] = said.ext_id
    await connection.close()
    return found


def owner(name: str, named: Mapping[str, str]) -> str:
    """Whose a contact of this name is; what was set aside bears its customer's name and a number."""
    name = name.partition(".")[0]
    while name in named:
        name = named[name]
    return name


def events(
    brevo: BrevoSandbox, named: Mapping[str, str], phones: Mapping[str, str]
) -> dict[str, dict[str, Event]]:
    """By customer and id.  Of those who share a phone together: live, what was told while it was one person's stays theirs."""
    found: dict[str, dict[str, Event]] = {}
    for one in brevo.events:
        name = brevo.contacts.by_id[one.contact_id].ext_id
        whose = phones.get(one.properties["task_sid"]) or owner(name, named)
        found.setdefault(whose, {})[one.properties["idempotency_key"]] = one
    return found


def same_event(was: Event, is_: Event) -> bool:
    """Whether they tell of the same.  Some properties are there once they are known, and it is sent when it must be."""
    ended = was.name == "CONVERSATION_ENDED"  # at the first end that was heard of
    both = was.properties.keys() & is_.properties.keys() - MORE_IS_HEARD
    return (
        was.name == is_.name
        and (is_.date <= was.date if ended else is_.date == was.date)
        and all(was.properties[name] == is_.properties[name] for name in both)
    )


def same_contact(was: Contact | None, is_: Contact | None, told: Told | None) -> bool:
    """Whether they are one; `told` is what one who knew everything from the start tells of who shares a phone, else None.

    No attribute is ever cleared and no list left, so who came to share a phone may have more of both live: what was theirs
    while the phone was one person's.  The other account has just what is told.
    """
    if was is None or is_ is None or was.email != is_.email:
        return False
    if told is None:
        return (was.attributes, was.list_ids) == (is_.attributes, is_.list_ids)
    attributes = dict(told.attributes)
    if "SMS" in attributes:
        attributes["SMS"] = str(attributes["SMS"]).removeprefix("+")
    return (
        (is_.attributes, is_.list_ids) == (attributes, set(told.list_ids))
        and is_.attributes.items() <= was.attributes.items()
        and is_.list_ids <= was.list_ids
    )


def differing(
    live: BrevoSandbox,
    blue: BrevoSandbox,
    named: Mapping[str, str],
    phones: Mapping[str, str],
    sharers: Mapping[str, Told],
) -> list[str]:
    """The customers of whom the two hold other events or another contact."""
    there, here = events(live, named, phones), events(blue, {}, phones)
    wrong = [
        whose
        for whose in there.keys() | here.keys()
        if (was := there.get(whose, {})).keys() != (is_ := here.get(whose, {})).keys()
        or not all(same_event(was[id_], is_[id_]) for id_ in was)
    ]
    customers = {owner(one.ext_id, named) for one in live.contacts.by_id.values()}
    return wrong + [
        customer
        for customer in customers | {one.ext_id for one in blue.contacts.by_id.values()}
        if not same_contact(
            live.contact(ext_id=customer), blue.contact(ext_id=customer), sharers.get(customer)
        )
    ]


def told_of(
    wrong: Collection[str],
    live: BrevoSandbox,
    blue: BrevoSandbox,
    named: Mapping[str, str],
    phones: Mapping[str, str],
) -> str:
    """What the two hold of these, of a few of them."""
    there, here = events(live, named, phones), events(blue, {}, phones)
    lines = []
    for whose in list(wrong)[:SHOWN]:
        lines += [
            f"{whose}: {live.contact(ext_id=whose)}\n  {blue.contact(ext_id=whose)}",
            *(
                f"  {id_}: {there.get(whose, {}).get(id_)}\n  {here.get(whose, {}).get(id_)}"
                for id_ in there.get(whose, {}).keys() | here.get(whose, {}).keys()
                if (was := there.get(whose, {}).get(id_)) is None
                or (is_ := here.get(whose, {}).get(id_)) is None
                or not same_event(was, is_)
            ),
        ]
    return "\n".join(lines)


def begin(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tajo", "replay", "--into", "blue", "--send-old-events", "--json"],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def kill(process: subprocess.Popen[bytes], *, whole: bool) -> None:
    """SIGKILL: the command alone, whose broker and sink then end in order, or all of them."""
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [int(pid) for task in tasks for pid in task.read_text().split()] if whole else []
    process.kill()
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


async def into(
    environment: Mapping[str, str], far: Callable[[], float], dice: random.Random
) -> tuple[int, dict]:
    """Run it, killed once at each share that `far` reaches, until it ends; the kills, and the certificate."""
    killed = 0
    for number, share in enumerate(KILLED_AT):
        process = begin(environment)
        while process.poll() is None and far() < share:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.02)
        await asyncio.sleep(dice.uniform(0, AFTER_S))
        if process.poll() is None:
            killed += 1
        kill(process, whole=number % 2 == 1)
    process = begin(environment)
    out, err = await asyncio.to_thread(process.communicate, timeout=INTO_S)
    assert process.returncode == 0, (out, err)
    return killed, json.loads(out)


@pytest.mark.timeout(2400)  # of `make fault`; here it is a minute
async def test_killed_again_and_again_another_account_ends_with_what_was_reached_live(
    service, nats_server, reliability, pytestconfig, tmp_path
):
    seed = pytestconfig.getoption("--into-seed") or time.time_ns()
    dice = random.Random(seed)
    made = lives(pytestconfig.getoption("--into-customers"), dice)
    wanted = names(made)
    live, blue = BrevoSandbox(limits=FAST), BrevoSandbox(api_key="xkeysib-of-blue-only", limits=FAST)
    async with serving(live) as url, serving(blue) as blue_url:
        told = {
            "TAJO_NATS_URL": nats_server.url, "BREVO_API_KEY": live.api_key, "TAJO_BREVO_URL": f"{url}/v3",
            "TAJO_BREVO_RATE_FRACTION": "1", "TAJO_BREVO_LOOK_S": "0.3", "TAJO_BREVO_IMPORT_FROM": "20",
        }  # fmt: skip
        services = [service("mapper", **told), service("brevo-sink", **told)]
        for one in services:
            await asyncio.to_thread(one.start, ready=True)
        began = time.monotonic()
        messages = list(raw(made, dice))
        in_log = await play(nats_server.url, iter(messages))
        await nats_server.all_acked(MAPPER, LIVE_S)
        while len(live.events) < wanted.total() and time.monotonic() - began < LIVE_S:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.1)
        for consumer in (BREVO_SINK, BREVO_SINK_PAST):
            await nats_server.all_acked(consumer, LIVE_S)
        live_s = time.monotonic() - began

        def far() -> float:
            contacts, events = len(blue.contacts.by_id), len(blue.events)
            return contacts / len(live.contacts.by_id) + events / len(live.events)

        began = time.monotonic()
        other = {
            "TAJO_DATA_DIR": str(tmp_path / "blue"), "TAJO_INTO_BLUE_BREVO_API_KEY": blue.api_key,
            "TAJO_INTO_BLUE_BREVO_URL": f"{blue_url}/v3",
        }  # fmt: skip
        killed, certificate = await into({**told, **other}, far, dice)
        into_s = time.monotonic() - began
        named = await renamed(nats_server.url)
        errors = b"".join([await asyncio.to_thread(one.end) for one in services])

    known = tell(
        load(ROOT / "config/tajo.yaml"),
        [from_message(one.subject, one.headers, one.body) for one in messages],
    )
    sharers = {
        id_: one for id_, one in known.contacts.items() if one.attributes["FLEX_IDENTITY"] in made.shared
    }
    wrong = differing(live, blue, named, shared_phones(made), sharers)
    told_live = Counter(one.properties["idempotency_key"] for one in live.events)
    told_blue = Counter(one.properties["idempotency_key"] for one in blue.events)
    lost, doubled = (told_live - told_blue).total(), (told_blue - told_live).total()
    imported = sum(len(process.rows) for process in blue.imports.processes.values())
    contacts = len(blue.contacts.by_id)
    reliability.add(
        "Another account, of the log alone",
        f"""
{in_log:,} raw events, some twice and all out of order, of customers of whom one learns late who they are, went through mapper and sink into
one Brevo in {live_s:,.0f} s; {len(named):,} contacts were renamed meanwhile.  `tajo replay --into` made another of them in {into_s:,.0f} s,
**killed with SIGKILL {killed} times**, every other time with its broker and its sink.  {imported:,} rows were imported.  Both held against each
other, customer by customer: **{lost} events lost, {doubled} doubled, {len(wrong)} customers otherwise.**
""",
        ("customers", "raw events", "contacts", "events", "raw events a second, live", "the same, into the other"),
        [(pytestconfig.getoption("--into-customers"), f"{in_log:,}", f"{contacts:,}", f"{len(blue.events):,}",
          f"{in_log / live_s:,.0f}", f"{in_log / into_s:,.0f}")],
    )  # fmt: skip
    assert Counter(one.name for one in live.events) == wanted
    assert (lost, doubled) == (0, 0)
    assert not wrong, f"--into-seed {seed}:\n{told_of(wrong, live, blue, named, shared_phones(made))}"
    assert killed >= 3
    assert certificate["equal"]
    assert certificate["found"]["events"] == len(blue.events)
    assert not live.orphans
    assert not blue.orphans
    assert b"Traceback" not in errors
