"""`tajo forget`, on a whole deployment: one person's day among others', and nothing of it left on any disk."""

import asyncio
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import nats
import pytest
from typer.testing import CliRunner

from mapper.book import Book
from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.day import webhooks
from sandbox.expected import CONTACTS
from sandbox.limits import Limits
from sandbox.play import Target, play, wait_until_equal
from sandbox.task import Task, at
from sandbox.twilio import ACCOUNT_SID, survey_webhook, taskrouter_webhook
from shared.message import MSG_ID
from shared.topology import BREVO_SINK, BREVO_SINK_PAST, MAPPER
from tajo.main import app
from tests.conftest import NatsServer

pytestmark = pytest.mark.nats_users  # it asks the broker for the most

TOKEN, PUBLIC, KEY = "token-of-twilio", "https://hooks.example.com", "the-key-of-the-test"
FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
MAPPING = (Path(__file__).parents[2] / "config/tajo.yaml").read_text()
MAIL, PHONE = "maria.lopez@example.com", "+12025550101"
SID = re.compile(rb"[A-Z]{2}[0-9a-f]{32}")


def sids(*, of: bool) -> set[bytes]:
    """In Maria's webhooks, or in everybody else's."""
    return {sid for one in webhooks() if (one.whom == "maria") is of for sid in SID.findall(one.body)}


SIDS = sids(of=True) - sids(of=False)
TRACES = {
    MAIL.encode(), b"maria.lopez", PHONE[1:].encode(), "María".encode(), b"Mar\\u00ed", b"Mar%C3%AD", b"ACME-1001", *SIDS,
}  # fmt: skip


def settings(url: str, brevo: BrevoSandbox) -> dict[str, str]:
    return {
        "TAJO_PUBLIC_URL": PUBLIC, "TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "TAJO_API_KEY": KEY, "BREVO_API_KEY": brevo.api_key, "TAJO_BREVO_URL": f"{url}/v3",
        "TAJO_BREVO_RATE_FRACTION": "1", "TAJO_BREVO_LOOK_S": "0.3",
    }  # fmt: skip


def unreadable():
    """A survey of Maria's that nobody can read: a dead letter that holds who she is."""
    return survey_webhook("maria", at("09:06:00.000"), email=MAIL, phone=PHONE, rating="splendid")


class Deployment:
    def __init__(self, tajo, brevo: BrevoSandbox, url: str) -> None:
        self.tajo, self.brevo, self.url = tajo, brevo, url
        self.nats_url = tajo.environment["TAJO_NATS_URL"]
        self.data = Path(tajo.environment["TAJO_DATA_DIR"])

    async def start(self) -> None:
        await asyncio.to_thread(self.tajo.start, ready=True)

    async def stop(self) -> bytes:
        return await asyncio.to_thread(self.tajo.end)

    async def send(self, *several) -> None:
        await play(several, Target(self.tajo.url, PUBLIC, TOKEN), lambda: None)

    def command(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tajo", *arguments],
            env={**os.environ, **self.tajo.environment, "COLUMNS": "200"}, input=stdin,
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    async def forget(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(self.command, "forget", *arguments, stdin=stdin)

    async def replay(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(self.command, "replay", *arguments)

    def use(self, mapping: str) -> None:
        """Put it where the services read it."""
        Path(self.tajo.environment["TAJO_CONFIG"]).write_text(mapping)

    async def settled(self) -> None:
        """Return once everything heard is told."""
        connection = await nats.connect(self.nats_url)
        deadline = time.monotonic() + 60
        try:
            while True:
                infos = [
                    await connection.jetstream().consumer_info(one.stream, one.durable)
                    for one in (MAPPER, BREVO_SINK, BREVO_SINK_PAST)
                ]
                if not any(info.num_pending or info.num_ack_pending for info in infos):
                    return
                assert time.monotonic() < deadline, infos
                await asyncio.sleep(0.1)
        finally:
            await connection.close()

    async def publish_unreadable(self) -> int:
        """An event whose envelope nobody can read, as another version might write it: its sequence in TWILIO."""
        connection = await nats.connect(self.nats_url)
        try:
            subject = "twilio.AC1.00.taskrouter.task.created"
            ack = await connection.jetstream().publish(subject, b"{}", headers={"ce-id": "another"})
            return ack.seq
        finally:
            await connection.close()

    async def message(self, stream: str, sequence: int):
        connection = await nats.connect(self.nats_url)
        try:
            return await connection.jetstream().get_msg(stream, sequence)
        finally:
            await connection.close()

    async def letters(self, count: int) -> None:
        """Return once DEAD holds so many."""
        deadline = time.monotonic() + 30
        while (there := (await self.state("DEAD")).messages) != count:
            assert time.monotonic() < deadline, there
            await asyncio.sleep(0.1)

    async def state(self, stream: str):
        connection = await nats.connect(self.nats_url)
        try:
            return (await connection.jetstream().stream_info(stream)).state
        finally:
            await connection.close()

    def found(self) -> dict[str, set[bytes]]:
        """What of Maria stands in any file: nothing of the broker's is compressed, which is looked at too."""
        traces: dict[str, set[bytes]] = {}
        for path in self.data.rglob("*"):
            if path.is_file():
                held = path.read_bytes()
                assert not held.startswith(b"cmp"), path
                if there := {trace for trace in TRACES if trace in held}:
                    traces[str(path.relative_to(self.data))] = there
        return traces

    def facts(self) -> dict:
        book = Book(self.data / "mapper/book.sqlite", read_only=True)
        try:
            return book.facts()
        finally:
            book.close()

    async def same_facts(self, wanted: dict) -> None:
        """Return once the book is so: some of what is heard again waits for ten seconds for the rest of its story."""
        deadline = time.monotonic() + 60
        while (facts := self.facts()) != wanted:
            assert time.monotonic() < deadline, differences(facts, wanted)
            await asyncio.sleep(0.5)

    def ledger(self) -> dict[str, list]:
        connection = sqlite3.connect(self.data / "brevo-sink/ledger.sqlite")
        try:
            tables = ("event", "contact", "foreign_name", "renamed", "erased")
            return {table: sorted(connection.execute(f"SELECT * FROM {table}")) for table in tables}
        finally:
            connection.close()


def differences(one: dict, other: dict) -> list:
    return [
        (key, one[part].get(key), other[part].get(key))
        for part in ("interactions", "identifiers", "customers")
        for key in one[part].keys() | other[part].keys()
        if one[part].get(key) != other[part].get(key)
    ]


@pytest.fixture
async def day(everything, tmp_path):
    """All services after the sandbox's day, and a dead letter."""
    file = tmp_path / "tajo.yaml"
    file.write_text(MAPPING)
    brevo = BrevoSandbox(limits=FAST)
    async with serving(brevo) as url:
        deployment = Deployment(everything(**settings(url, brevo), TAJO_CONFIG=str(file)), brevo, url)
        await deployment.start()
        await deployment.send(*webhooks(), unreadable())
        await wait_until_equal(url, CONTACTS, deadline_s=90, on_look=lambda _: None)
        await deployment.settled()
        yield deployment


def others(brevo: BrevoSandbox) -> list[dict]:
    """Everybody else's contacts at Brevo."""
    return [one.shown() for one in brevo.contacts.by_id.values() if one.email != MAIL]


async def test_what_replays_have_aside_goes_with_them_and_what_was_planned_is_not_done(day, tmp_path):
    plans = [str(tmp_path / f"{number}.plan.json") for number in range(2)]
    after = MAPPING.replace("VIP_TIER", "TIER")
    first, other = tmp_path / "first.yaml", tmp_path / "other.yaml"
    first.write_text(MAPPING)
    other.write_text(after)
    for arguments in (
        ("--plan", "--mapping", str(other), "--out", plans[0]),
        ("--apply", plans[0]),
        ("--plan", "--mapping", str(first), "--out", plans[1]),
    ):
        if "--apply" in arguments:
            day.use(after)
        done = await day.replay(*arguments)
        assert done.returncode == 0, done.stderr
    held = day.found()
    assert len([path for path in held if path.startswith("mapper/books/") and path.endswith(".sqlite")]) == 3
    planned = await day.state("OBJ_plans")  # packed: a search for bytes sees nothing there

    done = await day.forget("--email", MAIL)
    day.use(MAPPING)
    left = await day.state("OBJ_plans")
    refused = await day.replay("--apply", plans[1])
    later = Task(
        "somebody else", "voice", "Support Voice", {"from": "+12025550177", "call_sid": "CA" + "cd" * 16}
    )
    await day.send(*(taskrouter_webhook(one, "somebody") for one in later.created("10:00:00.000")))
    await day.settled()
    errors = await day.stop()

    assert done.returncode == 0, done.stderr
    assert (planned.messages > 0, left.messages) == (True, 0)
    assert refused.returncode == 1
    assert "somebody was forgotten since" in refused.stderr
    assert day.found() == {}
    assert day.brevo.contact(email_id=MAIL) is None
    assert any("12025550177" in identifier for identifier in day.facts()["identifiers"])
    assert b"Traceback" not in errors


async def test_of_somebody_forgotten_no_byte_is_left_and_everybody_elses_stays(day):
    everybody = others(day.brevo)
    held = "".join(day.found())
    assert all(
        where in held for where in ("mapper/book", "brevo-sink/ledger", "TWILIO", "BREVO", "RECEIPTS", "DEAD")
    )
    unreadable = await day.publish_unreadable()
    await day.letters(2)
    before = await day.state("TWILIO")

    done = await day.forget("--email", "-", "--json", stdin=f"{MAIL}\n")
    after = await day.state("TWILIO")
    await day.send(survey_webhook("nobody", at("09:07:00.000"), rating="awful"))
    await day.letters(2)  # of the unreadable event, and of the survey just now
    kept = await day.message("TWILIO", unreadable)
    errors = await day.stop()
    facts, ledger = day.facts(), day.ledger()

    assert done.returncode == 0, done.stderr
    certificate = json.loads(done.stdout)
    counts = {one["where"]: (one["found"], one["erased"]) for one in certificate["counts"]}
    assert counts["TWILIO"] == (before.messages - after.messages,) * 2
    assert kept.data == b"{}"
    assert counts["DEAD"] == (1, 1)
    assert counts["book: customers"] == counts["Brevo: contacts"] == (1, 1)
    assert all(found == erased for found, erased in counts.values())
    assert MAIL not in done.stdout
    assert day.found() == {}
    assert others(day.brevo) == everybody
    assert day.brevo.contact(email_id=MAIL) is None
    assert day.brevo.contact(phone_id=PHONE) is None
    assert b"Traceback" not in errors
    # What is made anew of the log is what is there.
    for service in ("mapper", "brevo-sink"):
        shutil.rmtree(day.data / service)
    calls = len(day.brevo.events)
    await day.start()
    await day.same_facts(facts)
    await day.settled()
    await day.stop()
    assert [rows[:2] for rows in day.ledger()["event"]] == [rows[:2] for rows in ledger["event"]]
    assert {row[0] for row in day.ledger()["contact"]} == {row[0] for row in ledger["contact"]}
    assert len(day.brevo.events) == calls
    assert day.found() == {}


async def test_a_log_put_back_from_a_copy_is_rid_of_them_again_before_the_lost_book_is_whole(day, free_port):
    copies = [
        await day.message("TWILIO", number) for number in range(1, (await day.state("TWILIO")).last_seq + 1)
    ]
    done = await day.forget("--email", MAIL)
    await day.stop()
    facts = day.facts()
    broker = NatsServer(day.data / "nats", free_port(), users=True)
    broker.start()
    connection = await nats.connect(broker.url)
    jetstream = connection.jetstream()
    for number, one in enumerate(copies):  # the log, and how far it was heard, as they were before
        await jetstream.publish(one.subject, one.data, headers={**one.headers, MSG_ID: f"copy-{number}"})
    heard = await jetstream.pull_subscribe_bind(MAPPER.durable, MAPPER.stream)
    for one in await heard.fetch(len(copies)):
        await one.ack_sync()
    await connection.close()
    broker.stop()
    broker.log.unlink()
    put_back = day.found()
    shutil.rmtree(day.data / "mapper")

    await day.start()
    await day.same_facts(facts)
    left = day.found()
    await day.stop()

    assert done.returncode == 0, done.stderr
    assert put_back
    assert left == {}
    assert day.brevo.contact(email_id=MAIL) is None


async def test_nothing_of_before_comes_back_and_who_writes_again_is_a_new_customer(day):
    late = [one for one in webhooks() if one.whom == "maria"]
    nobody = await day.forget("--email", "nobody@example.com")
    assert (nobody.returncode, bool(day.brevo.contact(email_id=MAIL))) == (1, True)
    assert "Nobody of that name was found" in nobody.stdout
    await day.forget("--email", MAIL)
    log = await day.state("TWILIO")

    await day.send(*late)
    await day.settled()
    refused = day.brevo.contact(email_id=MAIL)
    now = time.time_ns() // 1_000_000 + 60_000
    again = Task("maria comes back", "voice", "Support Voice", {
        "from": PHONE, "customers": {"email": MAIL, "phone": PHONE, "name": "María"}, "call_sid": "CA" + "ab" * 16,
    })  # fmt: skip
    events = [*again.created("10:00:00.000"), *again.canceled("10:00:30.000")]
    shift = now - events[0].time_ms
    fresh = [type(one)(**{**vars(one), "time_ms": one.time_ms + shift}) for one in events]
    await day.send(*(taskrouter_webhook(one, "maria") for one in fresh))
    deadline = time.monotonic() + 60
    while (
        contact := day.brevo.contact(email_id=MAIL)
    ) is None or "SUPPORT_TICKET_COUNT" not in contact.attributes:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    await day.settled()
    facts = day.facts()

    assert refused is None
    assert (await day.state("TWILIO")).messages == log.messages + len(fresh)
    assert contact.attributes["SUPPORT_TICKET_COUNT"] == 1
    assert f"email:{MAIL}" in facts["identifiers"]
    assert len([one for one in facts["interactions"].values() if f"email:{MAIL}" in one.identifiers]) == 1


async def test_killed_again_and_again_it_still_ends_and_leaves_nothing(day):
    connection = await nats.connect(day.nats_url)
    asked = asyncio.create_task(day.forget("--phone", PHONE, "--json"))
    killed = set()
    for number in range(4):
        await asyncio.sleep(0.4 + 0.3 * number)  # wherever it is by then
        for child in children(day.tajo.process.pid, ("mapper", "brevo_sink")):
            os.kill(child, signal.SIGKILL)
            killed.add(child)
    done = await asked
    await connection.close()
    await day.settled()
    await day.stop()

    assert len(killed) >= 4
    assert done.returncode == 0, done.stderr
    assert day.found() == {}
    assert day.brevo.contact(email_id=MAIL) is None


def children(pid: int, services: tuple[str, ...]) -> list[int]:
    """Those of `tajo up` that run one of these services."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            stat, command = (path / "stat").read_text(), (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == pid and any(
            one.encode() in command for one in services
        ):
            found.append(int(path.name))
    return found


@pytest.mark.parametrize("words", [("--email", "no mail"), ("--email", MAIL, "--phone", PHONE), ()])
def test_whoever_is_not_named_once_and_well_is_wrong_usage(words):
    assert CliRunner().invoke(app, ["forget", *words]).exit_code == 2


@pytest.mark.parametrize("option", ["--email", "--phone", "--customer"])
@pytest.mark.parametrize(("word", "stdin"), [(" ", ""), ("-", ""), ("-", "\n"), ("-", "  \n")])
def test_an_empty_name_is_nobodys(option, word, stdin):
    """An unset variable that was piped in: everything without a subject was forgotten from then on."""
    done = CliRunner().invoke(app, ["forget", option, word], input=stdin)

    assert done.exit_code == 2
    assert "it is empty" in done.stderr
