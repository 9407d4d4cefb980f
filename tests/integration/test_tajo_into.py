"""`tajo replay --into NAME`: another account gets all that the log says, and a certificate says so."""

import asyncio
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import nats
import pytest

from ingest.sources import Request, read
from mapper.story import tell
from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.http import Asked
from sandbox.limits import Limits
from sandbox.lives import Lives, lives, webhooks
from sandbox.load import paced, send
from sandbox.play import Target
from sandbox.twilio import ACCOUNT_SID
from shared import event, trace
from shared.command import ContactRelink, from_body
from shared.config import load
from shared.event import RawEvent

ROOT = Path(__file__).parent.parent.parent
CONFIG = load(ROOT / "config/tajo.yaml")
FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
TOKEN, PUBLIC, KEY = "token-of-twilio", "https://hooks.example.com", "xkeysib-of-blue-only"


def heard(made: Lives) -> list[RawEvent]:
    """Everything once, as ingest reads it, in order."""
    found = []
    for make in webhooks(made, 0, random.Random(0)):
        webhook = make()
        if webhook.route != "/webhooks/event-streams":
            asked = Request(webhook.route, webhook.body, 0, ACCOUNT_SID, keep_bodies=False)
            found += read(asked).events
    return list({(one.id, one.source): one for one in found}.values())


@pytest.fixture
async def blue():
    """The account that shall be filled."""
    sandbox = BrevoSandbox(api_key=KEY, limits=FAST)
    async with serving(sandbox) as url:
        sandbox.url = f"{url}/v3"
        yield sandbox


class Into:
    """The command, as a process of its own."""

    def __init__(
        self, nats_url: str, data: Path, account: BrevoSandbox, *more: str, **environment: str
    ) -> None:
        self.folder = data / "into/blue"
        self.process: subprocess.Popen[bytes] | None = None
        self._data = data
        self._command = [sys.executable, "-m", "tajo", "replay", "--into", "blue", *more]
        self._environment = {
            "TAJO_NATS_URL": nats_url, "TAJO_DATA_DIR": str(data), "TAJO_CONFIG": str(ROOT / "config/tajo.yaml"),
            "BREVO_API_KEY": "xkeysib-of-the-live-account", "TAJO_INTO_BLUE_BREVO_API_KEY": account.api_key,
            "TAJO_INTO_BLUE_BREVO_URL": account.url, "TAJO_BREVO_RATE_FRACTION": "1", "TAJO_BREVO_LOOK_S": "0.3",
            "TAJO_BREVO_IMPORT_FROM": "20", **environment,
        }  # fmt: skip

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command, cwd=ROOT, env={**os.environ, **self._environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    async def ended(self) -> tuple[int, str, str]:
        """Exit code, and what it wrote."""
        assert self.process is not None
        out, err = await asyncio.to_thread(self.process.communicate, timeout=200)
        return self.process.returncode, out.decode(), err.decode()

    async def run(self) -> tuple[int, str, str]:
        self.start()
        return await self.ended()

    @property
    def children(self) -> list[int]:
        """Its broker and its sink."""
        assert self.process is not None
        try:
            tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
            return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
        except OSError:
            return []


@pytest.fixture
def into(nats_server, tmp_path, blue):
    """`into("--json", …)`: of the log of the test's broker into the account blue."""
    made: list[Into] = []

    def make(*more: str, **environment: str) -> Into:
        made.append(Into(nats_server.url, tmp_path / "data", blue, *more, **environment))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


async def log(nats_server, events: list[RawEvent]) -> None:
    """Into the log of a deployment."""
    await nats_server.say(*(event.to_message(one, trace.start()) for one in events))


def right(brevo: BrevoSandbox, events: list[RawEvent]) -> None:
    """Brevo holds what a mapper says that hears each event once."""
    then = tell(CONFIG, events)
    held = {one.ext_id: one for one in brevo.contacts.by_id.values()}
    wanted = {id_: one for id_, one in then.contacts.items() if one.attributes["SUPPORT_TICKET_COUNT"]}
    assert held.keys() == wanted.keys()
    for id_, contact in wanted.items():
        have = held[id_]
        attributes = dict(contact.attributes)
        if "SMS" in attributes:
            attributes["SMS"] = attributes["SMS"].removeprefix("+")
        assert (have.email or None, have.attributes, have.list_ids) == (
            contact.email, attributes, set(contact.list_ids),
        )  # fmt: skip
    told = Counter((one.properties["idempotency_key"], one.name) for one in brevo.events)
    assert told == Counter((one.id, one.name) for one in then.events)
    assert not brevo.orphans


async def aliases(nats_url: str) -> dict[str, str]:
    """Names at Brevo that a customer no more has → the customer."""
    connection = await nats.connect(nats_url)
    jetstream = connection.jetstream()
    state = (await jetstream.stream_info("BREVO")).state
    found: dict[str, str] = {}
    for number in range(state.first_seq, state.last_seq + 1):
        said = from_body((await jetstream.get_msg("BREVO", number)).data)
        if isinstance(said, ContactRelink):
            found.pop(said.ext_id, None)
            found[said.was] = said.ext_id
    await connection.close()
    return found


def of(brevo: BrevoSandbox, named: dict[str, str]) -> dict[str, Counter]:
    """Of each customer, through its aliases, name and id of its events."""
    found: dict[str, Counter] = {}
    for one in brevo.events:
        name = brevo.contact(contact_id=one.contact_id).ext_id.partition(".")[0]
        while name in named:
            name = named[name]
        found.setdefault(name, Counter())[one.name, one.properties["idempotency_key"]] += 1
    return found


@pytest.mark.timeout(240)
async def test_what_was_reached_live_is_reached_in_an_empty_account(everything, blue, tmp_path):
    dice = random.Random(11)
    made = lives(70, dice)
    live = BrevoSandbox(limits=FAST)
    wanted = len(tell(CONFIG, heard(made)).events)
    async with serving(live) as url:
        tajo = everything(
            TAJO_PUBLIC_URL=PUBLIC, TWILIO_AUTH_TOKEN=TOKEN, TWILIO_ACCOUNT_SID=ACCOUNT_SID,
            BREVO_API_KEY=live.api_key, TAJO_BREVO_URL=f"{url}/v3", TAJO_BREVO_RATE_FRACTION="1",
        )  # fmt: skip
        await asyncio.to_thread(tajo.start, ready=True)
        await send(webhooks(made, 40, dice), Target(tajo.url, PUBLIC, TOKEN), turn=paced(400))
        deadline, quiet = time.monotonic() + 90, 0
        before = -1
        while len(live.events) < wanted or quiet < 8:
            assert time.monotonic() < deadline, (len(live.events), wanted)
            await asyncio.sleep(0.25)
            quiet, before = (quiet + 1, before) if len(live.requests) == before else (0, len(live.requests))
        # So that many wait, and an import is worth it.
        blue.faults.append(Fault("latency", seconds=1.0, path="/v3/contacts", method="POST", times=40))
        command = Into(
            tajo.environment["TAJO_NATS_URL"], tmp_path / "data", blue, "--json", "--send-old-events"
        )

        code, out, err = await command.run()
        named = await aliases(tajo.environment["TAJO_NATS_URL"])
        await asyncio.to_thread(tajo.end)

    assert code == 0, (out, err)
    said = json.loads(out)
    assert said["equal"]
    assert said["expected"] == said["found"]
    assert said["found"]["events"] == len(live.events) == len(blue.events) == wanted
    right(blue, heard(made))
    assert named  # customers were named anew while all this was live
    ours, theirs = of(blue, {}), of(live, named)
    # What was told while a phone was one person's stays with that contact, live.
    alone = [
        one for one in blue.contacts.by_id.values() if one.attributes["FLEX_IDENTITY"] not in made.shared
    ]
    assert len(alone) >= 0.7 * len(blue.contacts.by_id)
    for contact in alone:
        other = live.contact(ext_id=contact.ext_id)
        assert (other.attributes, other.list_ids) == (contact.attributes, contact.list_ids)
        assert ours[contact.ext_id] == theirs[contact.ext_id]
    assert sum(theirs.values(), Counter()) == sum(ours.values(), Counter())
    imported = sum(len(process.rows) for process in blue.imports.processes.values())
    assert imported >= 20


async def test_run_again_it_tells_nothing_and_says_what_was_changed_by_hand(nats_server, into, blue):
    events = heard(lives(60, random.Random(1)))
    await log(nats_server, events)
    command = into("--json", "--send-old-events")
    code, out, err = await command.run()
    assert code == 0, (out, err)
    right(blue, events)
    before = Counter(one.method for one in blue.requests)
    kept = json.loads((command.folder / "certificate.json").read_bytes())
    assert json.loads(out) == kept
    assert stat.S_IMODE(command.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((command.folder / "certificate.json").stat().st_mode) == 0o600
    for file in command.folder.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()
    victim = next(iter(blue.contacts.by_id.values()))
    victim.attributes["SUPPORT_TICKET_COUNT"] = 77
    blue.event_log.kept.append(blue.event_log.kept[0])

    code, out, _ = await command.run()

    assert code == 1
    said = json.loads(out)
    assert (said["equal"], said["differences"]) == (False, {"attribute": 1, "event_doubled": 1})
    assert said["first"][0]["ext_id"] == victim.ext_id or said["first"][1]["ext_id"] == victim.ext_id
    assert said["expected"]["hash"] == kept["expected"]["hash"] != said["found"]["hash"]
    after = Counter(one.method for one in blue.requests)
    assert after["POST"] == before["POST"]


async def test_old_events_are_sent_only_when_asked_for(nats_server, into, blue):
    events = heard(lives(30, random.Random(2)))
    await log(nats_server, events)

    code, out, err = await into("--json").run()

    assert code == 0, (out, err)
    said = json.loads(out)
    assert not blue.events
    assert said["notSent"] > 50
    assert "--send-old-events" in err
    code, out, err = await into("--json", "--send-old-events").run()
    assert code == 0, (out, err)
    assert "automations" in err
    assert json.loads(out)["notSent"] == 0
    right(blue, events)


async def test_an_account_that_is_not_empty_of_ours_is_refused_and_nothing_is_told(nats_server, into, blue):
    events = heard(lives(30, random.Random(3)))
    await log(nats_server, events)
    phone = next(iter(tell(CONFIG, events).contacts.values())).attributes["SMS"]
    body = {"email": "theirs@example.com", "attributes": {"SMS": phone}}
    await say(blue, body)

    code, _, err = await into("--send-old-events").run()

    assert code == 1
    assert "email or phone of our customers: 1" in err
    await say(blue, {"ext_id": "tajo-of-another", "email": "x@example.com"})
    code, _, err = await into("--json").run()
    assert code == 1
    assert json.loads(err)["error"]["what"].startswith("the account holds contacts of ours already")
    assert len(blue.contacts.by_id) == 2
    blue.contacts.by_id.clear()
    blue.contacts._owners.clear()
    code, _, err = await into("--send-old-events").run()
    assert code == 0, err
    right(blue, events)


async def say(blue: BrevoSandbox, body: dict) -> None:
    answer = blue.answer(Asked("POST", "/contacts", {}, json.dumps(body).encode()), {"api-key": KEY})
    assert answer.status == 201


async def test_another_mapping_or_account_is_refused_for_one_that_was_begun(
    nats_server, into, blue, tmp_path
):
    await log(nats_server, heard(lives(5, random.Random(4))))
    code, out, err = await into("--json").run()
    assert code == 0, (out, err)
    other = tmp_path / "other.yaml"
    other.write_text((ROOT / "config/tajo.yaml").read_text().replace("VIP_TIER", "TIER"))

    code, _, err = await into("--mapping", str(other)).run()

    assert code == 1
    assert "was begun with mapping" in err
    assert "another name" in err


async def test_without_a_key_it_says_which_variable_is_missing(into):
    code, _, err = await into(TAJO_INTO_BLUE_BREVO_API_KEY="").run()
    assert code == 78
    assert "TAJO_INTO_BLUE_BREVO_API_KEY" in err


@pytest.mark.timeout(240)
async def test_stopped_and_killed_at_any_moment_the_same_command_goes_on_and_ends_the_same(
    nats_server, into, blue
):
    dice = random.Random(5)
    events = heard(lives(60, dice))
    await log(nats_server, events)
    command = into("--json", "--send-old-events")
    blue.faults.append(Fault("latency", seconds=0.2, path="/v3/contacts", method="POST", times=None))
    blue.faults.append(Fault("latency", seconds=1.0, path="/v3/events/batch", times=None))
    seen = [
        (command.folder / "book.sqlite").exists,
        lambda: bool(blue.contacts.by_id),
        lambda: len(blue.contacts.by_id) > 20,
        lambda: len(blue.events) > 50,
    ]
    killed = 0
    for number, moment in enumerate(seen):
        command.start()
        while command.process.poll() is None and not moment():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        if number % 2 and (children := command.children):
            os.kill(dice.choice(children), signal.SIGKILL)  # its broker or its sink: it is started again
            await asyncio.sleep(dice.uniform(0, 0.5))
        if command.process.poll() is None:
            killed += 1
            command.process.send_signal(signal.SIGINT if number == 2 else signal.SIGKILL)
        code, _, err = await command.ended()
        if number == 2:
            assert code == 130
            assert "goes on from there" in err

    code, out, err = await command.run()

    assert killed >= 3
    assert code == 0, (out, err)
    right(blue, events)
    assert json.loads(out)["equal"]
