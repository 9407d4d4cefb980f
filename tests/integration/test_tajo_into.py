"""`tajo replay --into NAME`: another account gets all that the log says, and a certificate says so."""

import asyncio
import json
import os
import random
import signal
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ingest.sources import Request, read
from mapper.story import tell
from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.http import Asked
from sandbox.limits import Limits
from sandbox.lives import Lives, lives, webhooks
from sandbox.twilio import ACCOUNT_SID
from shared import event, trace
from shared.connector_file import load
from shared.event import RawEvent
from tajo import apart
from tajo.main import app

ROOT = Path(__file__).parent.parent.parent
CONFIG = load(ROOT / "config/tajo.yaml")
FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
KEY = "xkeysib-of-blue-only"


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

    def __init__(self, nats_url: str, data: Path, account: BrevoSandbox, *more: str) -> None:
        self.folder = data / "into/blue"
        self.process: subprocess.Popen[bytes] | None = None
        self._command = [sys.executable, "-m", "tajo", "replay", "--into", "blue", *more]
        self._environment = {
            "TAJO_NATS_URL": nats_url, "TAJO_DATA_DIR": str(data), "TAJO_CONFIG": str(ROOT / "config/tajo.yaml"),
            "BREVO_API_KEY": "xkeysib-of-the-live-account", "TAJO_INTO_BLUE_BREVO_API_KEY": account.api_key,
            "TAJO_INTO_BLUE_BREVO_URL": account.url, "TAJO_BREVO_RATE_FRACTION": "1", "TAJO_BREVO_LOOK_S": "0.3",
            "TAJO_BREVO_IMPORT_FROM": "20",
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


@pytest.fixture
def into(nats_server, tmp_path, blue):
    """`into("--json", …)`: of the log of the test's broker into the account blue."""
    made: list[Into] = []

    def make(*more: str) -> Into:
        made.append(Into(nats_server.url, tmp_path / "data", blue, *more))
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


async def test_old_events_are_sent_only_when_asked_for_and_interrupted_the_same_command_goes_on(
    nats_server, into, blue
):
    events = heard(lives(40, random.Random(2)))
    await log(nats_server, events)

    code, out, err = await into("--json").run()

    assert code == 0, (out, err)
    said = json.loads(out)
    assert not blue.events
    assert said["notSent"] > 50
    assert "--send-old-events" in err
    blue.faults.append(Fault("latency", seconds=1.0, path="/v3/events/batch"))
    command = into("--json", "--send-old-events")
    command.start()
    while not blue.faults[0].fitted:
        assert command.process.poll() is None
        await asyncio.sleep(0.02)
    command.process.send_signal(signal.SIGINT)
    code, _, err = await command.ended()
    assert code == 130
    assert "automations" in err
    assert "goes on from there" in err
    code, out, err = await command.run()
    assert code == 0, (out, err)
    assert json.loads(out)["notSent"] == 0
    right(blue, events)


def test_the_broker_and_the_sink_beside_it_are_never_given_one_port():
    # Taken one after the other, one pair in some 7,900 was a port twice.
    assert all(first != second for first, second in (apart._free_ports() for _ in range(40_000)))


async def test_run_again_it_tells_nothing_and_says_what_was_changed_by_hand(
    nats_server, into, blue, tmp_path
):
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

    other = tmp_path / "other.yaml"
    other.write_text((ROOT / "config/tajo.yaml").read_text().replace("VIP_TIER", "TIER"))
    code, _, err = await into("--mapping", str(other)).run()
    assert code == 1
    assert "was begun with mapping" in err
    assert "another name" in err


async def test_an_account_that_is_not_empty_of_ours_is_refused_and_nothing_is_told(nats_server, into, blue):
    events = heard(lives(10, random.Random(3)))
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


def test_without_a_key_it_says_which_variable_is_missing(tmp_path):
    words = ["replay", "--into", "blue", "--data-dir", str(tmp_path)]
    done = CliRunner().invoke(app, words, env={"TAJO_INTO_BLUE_BREVO_API_KEY": "", "COLUMNS": "120"})
    assert done.exit_code == 78
    assert "TAJO_INTO_BLUE_BREVO_API_KEY" in done.output
