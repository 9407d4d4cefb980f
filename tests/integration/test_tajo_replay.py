"""`tajo replay` against a broker on which the test writes what a mapper would: how it asks, watches, shows and ends."""

import asyncio
import gzip
import json
import os
import signal
import stat
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import nats
import pytest
from typer.testing import CliRunner

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from shared import command, receipt, replay, trace
from shared.command import EventTrack
from shared.receipt import Receipt, Told
from shared.replay import Asked, ContactLine, EventLine, Expected, Plan, Replay, Summary
from shared.topology import PLANS, REPLAYS
from tajo import deployment
from tajo.main import app
from tajo.replay import AGAIN_MAX, ReplayError, ask_again, drop, new_id, to_apply, watch

ROOT = Path(__file__).parent.parent.parent
AT_MS = 1_795_600_000_000
OLD = "2020-01-01T00:00:00.000Z"
ANN = ContactLine(
    ext_id="tajo-ann", action="change", was=("tajo-old",), email=(None, "ann@example.com"),
    attributes={"TIER": ("gold", "silver"), "N": (None, 3)}, kept={"GONE": "x"}, lists=(32,), lists_kept=(33,),
    conflicts=("SMS",),
)  # fmt: skip
EVENTS = (
    EventLine(id="WT1/task.created", ext_id="tajo-ann", name="ASKED", time=OLD, action="send"),
    EventLine(id="WT2/task.created", ext_id="tajo-ann", name="ASKED", time=OLD, action="suppress"),
    EventLine(id="WT3/task.created", ext_id="", name="task.created", time="", action="sent"),
)
TOLD = Summary(
    customers=9, change=1, unchanged=8, relinks=1, conflicts=1, lists=1, send=1, suppress=1, sent=1
)


class Mapper:
    """The bucket and the store, as a mapper has them."""

    def __init__(self, connection, bucket, store) -> None:
        self.connection, self.bucket, self.store = connection, bucket, store

    async def asked(self, *states: str) -> Replay:
        """The one there is, once somebody wants something of it."""
        while True:
            for value, _ in (await deployment.entries(self.connection, REPLAYS.name)).values():
                found = msgspec.json.decode(value, type=Replay)
                if found.state in (states or ("asked",)):
                    return found
            await asyncio.sleep(0.05)

    async def told_to_apply(self, plan: Plan) -> None:
        """Return once somebody wants this plan done."""
        while (await replay.read(self.bucket, plan.id))[1].apply != plan.hash:  # noqa: ASYNC110 - others write it
            await asyncio.sleep(0.05)

    async def write(self, asked: Replay, **now) -> Replay:
        revision, found = await replay.read(self.bucket, asked.asked.id)
        wanted = msgspec.structs.replace(found or asked, **now)
        await replay.write(self.bucket, wanted, revision)
        return wanted

    async def plan(self, asked: Replay, expected=(), **what) -> Plan:
        """Plan it, and say so."""
        plan = plan_of(asked.asked, **what)
        await self.write(asked, state="folding", sequence=10, to=50, mapping="bbb")
        await self.store.put(plan.id, replay.to_object(plan))
        if asked.asked.expected:
            lines = b"".join(msgspec.json.encode(one) + b"\n" for one in expected)
            await self.store.put(f"{plan.id}.expected", gzip.compress(lines))
        await self.write(asked, state="planned", sequence=50, to=50, plan=plan.hash)
        return plan


def plan_of(asked: Asked, **what) -> Plan:
    usual = {"summary": TOLD, "contacts": (ANN,), "events": EVENTS, "mapping": "bbb", "mapping_before": "aaa"}
    return Plan(id=asked.id, sequence=50, asked=asked, **{**usual, **what})


@pytest.fixture
async def mapper(nats_server):
    connection = await nats.connect(nats_server.url)
    jetstream = connection.jetstream()
    yield Mapper(
        connection, await jetstream.key_value(REPLAYS.name), await jetstream.object_store(PLANS.name)
    )
    await connection.close()


@asynccontextmanager
async def tajo(url: str, folder: Path, *words: str, stdin: str = "", **environment: str):
    """`tajo replay`, begun; `await end()` gives its exit code, output and errors."""
    process = subprocess.Popen(  # noqa: ASYNC220 - it is there at once
        [sys.executable, "-m", "tajo", "replay", *words],
        env={**os.environ, "TAJO_NATS_URL": url, "TAJO_CONFIG": str(ROOT / "config/tajo.yaml"), "COLUMNS": "120",
             "NO_COLOR": "1", **environment},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip

    async def end(number: int = 0) -> tuple[int, str, str]:
        if number:
            process.send_signal(number)
        out, err = await asyncio.to_thread(process.communicate, stdin, 90)
        return process.returncode, out, err

    end.process = process
    try:
        yield end
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


async def ran(url: str, folder: Path, *words: str, **how: str) -> tuple[int, str, str]:
    async with tajo(url, folder, *words, **how) as end:
        return await end()


async def test_a_plan_is_asked_for_shown_and_written_for_its_owner_alone(nats_server, mapper, tmp_path):
    words = ("--plan", "--since", "2026-11-01", "--customer", "-", "--task", "WT" + "0" * 32)
    async with tajo(nats_server.url, tmp_path, *words, stdin="ann@example.com\n") as end:
        ending = asyncio.create_task(end())
        asked = await mapper.asked()
        plan = await mapper.plan(asked)
        code, out, err = await ending

    assert (code, err) == (0, "")
    assert asked.asked.mapping == (ROOT / "config/tajo.yaml").read_text()
    assert asked.asked.selection.customers == ("ann@example.com",)
    assert (asked.asked.event_age_max_s, asked.asked.send_old_events, asked.asked.expected) == (
        3600,
        False,
        False,
    )
    for said in (
        f"Plan {plan.id}: the log up to 50, mapping bbb instead of aaa",
        "contacts   0 created, 1 changed, 0 told again, 8 not told, 0 left; 9 customers in all",
        "~ tajo-ann changes", "tajo-old → tajo-ann", "email    · → ann@example.com", "TIER  gold → silver", "N  · → 3",
        "GONE  x stays, though no longer told", "joins 32", "stays in 33, though no longer told", "conflict",
        "events     1 sent, 1 too old (1 h)", f"+ {OLD} ASKED  tajo-ann", f"· {OLD} ASKED  tajo-ann  too old, is not sent",
        "= at a time nobody knows task.created", "1 event that happened longer ago will be sent.",
        "automations that begin with these events", "make this mapping the mapper's connector file",
        f"Written to {plan.id}.plan.json",
    ):  # fmt: skip
        assert said in out
    file = tmp_path / f"{plan.id}.plan.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert msgspec.json.decode(file.read_bytes(), type=Plan).hash == plan.hash
    assert [one.name for one in tmp_path.iterdir() if "plan" in one.name] == [file.name]


async def test_a_plan_can_be_had_as_json_and_again_later(nats_server, mapper, tmp_path):
    config = tmp_path / "other.yaml"
    config.write_text("connectors: {twilio_flex: {replay: {event_age_max_s: 60}}}\n")
    words = ("--plan", "--json", "--send-old-events", "--mapping", str(config), "--out", str(tmp_path / "p"))
    async with tajo(nats_server.url, tmp_path, *words) as end:
        ending = asyncio.create_task(end())
        asked = await mapper.asked()
        plan = await mapper.plan(asked)
        code, out, err = await ending
    later = await ran(nats_server.url, tmp_path, "--plan", "--json", "--id", plan.id)

    assert (code, err) == (0, "")
    assert (asked.asked.event_age_max_s, asked.asked.send_old_events) == (60, True)
    told = json.loads(out)
    assert (told["file"], told["hash"], told["readBack"]) == (str(tmp_path / "p"), plan.hash, None)
    assert msgspec.convert(told["plan"], Plan) == plan
    assert json.loads(later[1])["hash"] == plan.hash


async def test_a_long_plan_is_shortened_and_says_how_much_more_there_is(nats_server, mapper, tmp_path):
    many = tuple(ContactLine(ext_id=f"tajo-{n:03}", action="create") for n in range(120))
    async with tajo(nats_server.url, tmp_path, "--plan") as end:
        ending = asyncio.create_task(end())
        plan = await mapper.plan(await mapper.asked(), contacts=many, events=(), summary=Summary(create=120))
        _, short, _ = await ending
    _, whole, _ = await ran(nats_server.url, tmp_path, "--plan", "--id", plan.id, "--all")

    assert "… 100 more: --all shows them" in short
    assert "tajo-119" not in short
    assert "tajo-119" in whole
    assert "more: --all" not in whole


async def test_a_file_that_is_wrong_is_said_with_line_and_column_and_nothing_is_asked(
    nats_server, mapper, tmp_path
):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("event_mapping:\n  task.cancelled: X\n")

    code, _, err = await ran(nats_server.url, tmp_path, "--plan", "--mapping", str(wrong))

    assert code == 78
    assert "line 2, column 3: no event is called 'task.cancelled'; did you mean task.canceled?" in err
    assert await deployment.entries(mapper.connection, REPLAYS.name) == {}


async def test_without_a_mapper_that_is_said_and_an_interrupt_leaves_the_plan_to_the_mapper(
    nats_server, mapper, tmp_path
):
    async with tajo(nats_server.url, tmp_path, "--plan") as end:
        asked = await mapper.asked()
        said = await asyncio.to_thread(end.process.stderr.readline)
        code, out, err = await end(signal.SIGINT)

    assert (code, out) == (130, "")
    assert "The mapper has not begun yet" in said
    assert f"`tajo replay --plan --id {asked.asked.id}` shows the plan" in err
    assert (await mapper.asked()).asked.id == asked.asked.id


@pytest.mark.parametrize("state", ["failed", "refused"])
async def test_a_plan_that_comes_to_nothing_says_why(nats_server, mapper, tmp_path, state):
    async with tajo(nats_server.url, tmp_path, "--plan", "--json") as end:
        ending = asyncio.create_task(end())
        asked = await mapper.asked()
        await mapper.write(asked, state=state, why="the disk is full")
        code, out, err = await ending

    assert (code, out) == (1, "")
    error = json.loads(err)["error"]
    assert error["what"] == f"{asked.asked.id} is {state}: the disk is full"
    assert error["remedy"]


@pytest.fixture
async def planned(mapper, tmp_path):
    """A plan and its file, as `--plan` left them."""
    asked = Asked(id=new_id(AT_MS), mapping="", at_ms=AT_MS)
    plan = await mapper.plan(await mapper.write(Replay(asked=asked)))
    (tmp_path / "plan").write_bytes(msgspec.json.encode(plan))
    return plan


async def test_old_events_are_asked_about_and_without_a_terminal_need_a_yes(
    nats_server, mapper, planned, tmp_path
):
    code, _, err = await ran(nats_server.url, tmp_path, "--apply", "plan")

    assert code == 2
    assert "1 event that happened longer ago will be sent." in err
    assert "say --yes" in " ".join(err.replace("│", " ").split())
    assert (await mapper.asked("planned")).apply == ""


async def test_a_plan_is_applied_and_watched_until_brevo_was_told_and_the_same_again_changes_nothing(
    nats_server, mapper, planned, tmp_path
):
    bucket = mapper.bucket
    old = EventTrack(id="WT1/task.created", ext_id="tajo-ann", name="ASKED", time=OLD, properties={})
    await nats_server.say(command.to_message(old, trace.start(), past=True))
    consumer = await mapper.connection.jetstream().pull_subscribe_bind("brevo-sink-past", "BREVO")
    async with tajo(nats_server.url, tmp_path, "--apply", "plan", "--yes", "--json") as end:
        ending = asyncio.create_task(end())
        await mapper.told_to_apply(planned)
        await mapper.write(Replay(asked=planned.asked), state="applying")
        await mapper.write(Replay(asked=planned.asked), state="applied", commands=1, applied_ms=AT_MS)
        assert not ending.done()
        (message,) = await consumer.fetch(1)
        await message.ack()
        code, out, err = await ending
    revision, _ = await replay.read(bucket, planned.id)
    again = await ran(nats_server.url, tmp_path, "--apply", "plan")

    assert (code, err.splitlines()[1:]) == (0, [])
    assert json.loads(out) == {
        "id": planned.id, "state": "applied", "mapping": "bbb", "commands": 1, "deadLetters": 0,
    }  # fmt: skip
    assert again[0] == 0
    assert "Mapping bbb is in force; 1 command of" in again[1]
    assert (await replay.read(bucket, planned.id))[0] == revision


async def test_a_refusal_says_why_and_once_mended_the_same_command_does_it(
    nats_server, mapper, planned, tmp_path
):
    why = "the connector file is another than the plan's"
    await mapper.write(Replay(asked=planned.asked), state="refused", apply=planned.hash, why=why)
    async with tajo(nats_server.url, tmp_path, "--apply", "plan", "--yes") as end:
        ending = asyncio.create_task(end())
        await mapper.asked("planned")
        await mapper.write(Replay(asked=planned.asked), state="refused", why=why)
        code, _, err = await ending

    assert code == 1
    assert f"{planned.id} is refused: {why}" in err
    assert "once that is mended, the same command again does it" in err


async def test_an_interrupted_apply_goes_on_without_the_command(nats_server, mapper, planned, tmp_path):
    async with tajo(nats_server.url, tmp_path, "--apply", "plan", "--yes") as end:
        await mapper.told_to_apply(planned)
        code, _, err = await end(signal.SIGINT)

    assert code == 130
    assert "The same command watches it again." in err
    assert (await mapper.asked("planned")).apply == planned.hash


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"state": "folding"}, "is being planned again"),
        ({"state": "dropped"}, "is dropped"),
        ({"state": "failed", "why": "no disk"}, "is failed: no disk"),
        ({"state": "planned", "plan": "another"}, "this is not the plan that the mapper made"),
    ],
)
def test_what_is_not_the_mappers_plan_as_it_is_is_not_applied(state, said):
    asked = Asked(id="r1", mapping="", at_ms=AT_MS)

    with pytest.raises(ReplayError, match=said):
        to_apply(Replay(asked=asked, **state), plan_of(asked))


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read"), ("{}", "holds no plan"), ("format", "of another version")]
)
async def test_a_file_that_is_no_plan_is_said(nats_server, tmp_path, content, said):
    if content == "format":
        content = msgspec.json.encode(plan_of(Asked(id="r1", mapping="", at_ms=1), format=2)).decode()
    if content is not None:
        (tmp_path / "plan").write_text(content)

    code, _, err = await ran(nats_server.url, tmp_path, "--apply", "plan")

    assert code == 1
    assert said in err


async def test_replays_are_listed_and_dropped_and_of_the_one_in_force_only_what_it_replaced(
    nats_server, mapper, planned, tmp_path
):
    url = nats_server.url
    for id_, how in (("a1", {"state": "applied", "applied_ms": 1}), ("z2", {"state": "applied", "applied_ms": 2}),
                     ("z3", {"state": "applying"})):  # fmt: skip
        await mapper.write(Replay(asked=Asked(id=id_, mapping="", at_ms=1), **how))

    _, out, _ = await ran(url, tmp_path, "--list", "--json")
    code, said, _ = await ran(url, tmp_path, "--drop", planned.id)
    again, others = await drop(url, planned.id), [await drop(url, id_) for id_ in ("a1", "z2")]
    with pytest.raises(ReplayError, match="z3 is being applied"):
        await drop(url, "z3")
    with pytest.raises(ReplayError, match="no replay is called z4 here"):
        await drop(url, "z4")
    _, table, _ = await ran(url, tmp_path, "--list")

    assert [(one["id"], one["state"], one["inForce"]) for one in json.loads(out)] == [
        ("z3", "applying", False), ("z2", "applied", True), ("a1", "applied", False), (planned.id, "planned", False),
    ]  # fmt: skip
    assert code == 0
    assert f"{planned.id} is dropped: the mapper deletes its book." in said
    assert (again, others) == (False, [False, True])
    assert "dropped, in force" in table
    assert "4 replays" in table
    with pytest.raises(nats.js.errors.ObjectNotFoundError):
        await mapper.store.get(planned.id)
    with pytest.raises(ReplayError, match="is dropped"):
        await watch(url, planned.id, ("planned",), lambda _: None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say one of --plan"),
        (("--plan", "--list"), "say one of --plan"),
        (("--list", "--all"), "go with --plan"),
        (("--apply", "x", "--since", "2026-11-01"), "go with --plan"),
        (("--plan", "--id", "x", "--read-back"), "as it was asked"),
        (("--plan", "--sequence", "x"), "no sequence"),
        (("--plan", "--until", "later"), "later is no date"),
        (("--plan", "--subjects", "brevo.>"), "brevo.> is no subject"),
        (("--plan", "--task", ""), "names no task"),
        (("--plan", "--id", ""), "names no replay"),
        (("--plan", "--customer", "-"), "names no customer"),
        (("--plan", "--out", "nowhere/x"), "is no folder"),
    ],
)
def test_what_is_wrong_with_the_words_is_said(words, said):
    done = CliRunner().invoke(app, ["replay", *words], input="\n", env={"COLUMNS": "120"})

    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())


async def test_brevo_itself_is_read_and_who_is_held_otherwise_is_planned_again(nats_server, mapper, tmp_path):
    brevo = BrevoSandbox()
    everybody = [
        Expected(
            ext_id=f"tajo-{n}", email=f"c{n}@example.com", attributes={"TIER": "gold"}, list_ids=(32,),
            events=((f"WT{n}/x", "ASKED", OLD),),
        )
        for n in range(5)
    ]  # fmt: skip
    async with serving(brevo) as url, httpx.AsyncClient(base_url=f"{url}/v3", headers={"api-key": brevo.api_key}) as api:  # fmt: skip
        (await api.post("/contacts/attributes/normal/TIER", json={"type": "text"})).raise_for_status()
        for n, tier in enumerate(("gold", "gold", "by hand", "gold")):
            name = "crm-7" if n == 1 else f"tajo-{n}"
            body = {
                "ext_id": name,
                "email": f"c{n}@example.com",
                "listIds": [32],
                "attributes": {"TIER": tier},
            }
            (await api.post("/contacts", json=body)).raise_for_status()
            if n != 3:
                happened = {
                    "event_name": "ASKED", "event_date": OLD, "identifiers": {"ext_id": name},
                    "event_properties": {"idempotency_key": f"WT{n}/x"},
                }  # fmt: skip
                (await api.post("/events", json=happened)).raise_for_status()
        told = Told(ext_id="tajo-1", version=1, position=1, mapping="aaa", name="crm-7")
        said = Receipt(outcome="delivered", kind="contact.upsert", ids=("x",), told=told)
        await nats_server.say(receipt.to_message(said, "r1", trace.start()))
        settings = {"TAJO_BREVO_URL": f"{url}/v3", "BREVO_API_KEY": brevo.api_key, "TAJO_BREVO_RATE_FRACTION": "1"}  # fmt: skip
        async with tajo(nats_server.url, tmp_path, "--plan", "--read-back", "--json", **settings) as end:
            ending = asyncio.create_task(end())
            asked = await mapper.asked()
            await mapper.plan(asked, expected=everybody, contacts=(), events=())
            again = await mapper.asked()
            plan = await mapper.plan(again, contacts=(), events=())
            code, out, err = await ending

    assert (code, err) == (0, "")
    assert asked.asked.expected
    assert (again.asked.id, again.asked.again, again.asked.expected) == (
        asked.asked.id,
        ("tajo-2", "tajo-4"),
        False,
    )
    found = json.loads(out)
    assert found["hash"] == plan.hash
    assert (found["readBack"]["contacts"], found["readBack"]["events"], found["readBack"]["again"]) == (
        4, 3, ["tajo-2", "tajo-4"],
    )  # fmt: skip
    assert [(one["kind"], one["ext_id"], one.get("found")) for one in found["readBack"]["differences"]] == [
        ("attribute", "tajo-2", "by hand"), ("event_missing", "tajo-3", None), ("contact_missing", "tajo-4", None),
        ("event_missing", "tajo-4", None),
    ]  # fmt: skip


async def test_where_brevo_cannot_be_read_that_is_said(nats_server, mapper, tmp_path):
    async with serving(BrevoSandbox()) as url:
        settings = {"TAJO_BREVO_URL": f"{url}/v3", "BREVO_API_KEY": "another"}
        async with tajo(nats_server.url, tmp_path, "--plan", "--read-back", **settings) as end:
            ending = asyncio.create_task(end())
            await mapper.plan(await mapper.asked())
            code, out, err = await ending
    unset = await ran(nats_server.url, tmp_path, "--plan", "--read-back", BREVO_API_KEY="", TAJO_CREDENTIALS=str(tmp_path / "none"))  # fmt: skip

    assert (code, out) == (69, "")
    assert "key" in err
    assert unset[0] == 78
    assert "BREVO_API_KEY is not set" in unset[2]


async def test_the_same_is_planned_anew_with_whom_brevo_holds_otherwise(nats_server, mapper, planned):
    await ask_again(nats_server.url, planned.id, ("tajo-ann",))

    again = await mapper.asked()
    assert (again.asked.again, again.asked.expected, again.plan) == (("tajo-ann",), False, "")
    assert again.sequence == 50
    with pytest.raises(ReplayError, match="is asked meanwhile"):
        await ask_again(nats_server.url, planned.id, ())
    with pytest.raises(ReplayError, match="more than 100,000"):
        await ask_again(nats_server.url, planned.id, ("x",) * (AGAIN_MAX + 1))
