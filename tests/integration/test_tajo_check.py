"""`tajo connectors test` as a process: every line where all is well, and each row of the troubleshooting table by a fault."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nats
import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.rest import CHAT_SERVICE_SID, TwilioSandbox
from sandbox.twilio import ACCOUNT_SID, WORKSPACE_SID
from shared.event import RawEvent, to_message
from shared.publish import publish
from tajo import nats_server as embedded

ROOT = Path(__file__).parents[2]
PRODUCTS = ("FLEX", "TASKROUTER", "CONVERSATIONS", "EVENTS")
TOKEN, BREVO_KEY = "5ecret0f7wilio5ecret0f7wilio5ecr", "xkeysib-s3cret-of-brevo"
KEY_SID, KEY_SECRET = "SK" + "7" * 32, "5ecretOfTheKey5ecretOfTheKey5ecr"
CONFIGURATION = {
    "account_sid": ACCOUNT_SID, "taskrouter_workspace_sid": WORKSPACE_SID, "chat_service_instance_sid": CHAT_SERVICE_SID,
}  # fmt: skip
FIRST = """\
✓ Flex API connection successful
✓ Conversations API accessible
✓ TaskRouter workspace found
✓ Agent list readable
✓ Queue configuration loaded
"""


class Local:
    def __init__(self, url: str, twilio: TwilioSandbox, brevo: BrevoSandbox, folder: Path) -> None:
        self.twilio, self.brevo, self.folder = twilio, brevo, folder
        self.environ = {
            "PATH": os.environ["PATH"],
            "TAJO_DATA_DIR": str(folder / "tajo/data"),
            "TAJO_CONFIG": str(ROOT / "config/tajo.yaml"),
            "TAJO_BREVO_URL": f"{url}/v3",
            "TAJO_NATS_URL": "nats://127.0.0.1:9",
            "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "BREVO_API_KEY": BREVO_KEY,
            **{f"TAJO_{name}_PORT": "9" for name in ("INGEST", "MAPPER", "BREVO_SINK", "POLLER")},
            **{f"TAJO_TWILIO_{name}_URL": f"{url}/twilio/{name.lower()}" for name in PRODUCTS},
        }

    async def test(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "tajo", "connectors", "test", "twilio-flex", *arguments],
            env={**self.environ, **environ}, capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        assert not any(secret in done.stdout + done.stderr for secret in (TOKEN, BREVO_KEY, KEY_SECRET))
        assert "Traceback" not in done.stderr
        return done

    def config(self, poller: str) -> dict[str, str]:
        text = (ROOT / "config/tajo.yaml").read_text()
        path = self.folder / "tajo.yaml"
        path.write_text(text.replace("    debug: false", f"    debug: false\n    poller: {{{poller}}}"))
        return {"TAJO_CONFIG": str(path)}


@pytest.fixture
async def local(tmp_path):
    twilio, brevo = (
        TwilioSandbox(token=TOKEN, api_keys={KEY_SID: KEY_SECRET}),
        BrevoSandbox(api_key=BREVO_KEY),
    )
    async with serving(brevo, twilio) as url:
        yield Local(url, twilio, brevo, tmp_path)


async def heard(url: str, source: str) -> None:
    """A raw event in the log."""
    connection = await nats.connect(url)
    event = RawEvent(
        id=source, product="taskrouter", type="task.created", source=source, subject="WT", account_sid=ACCOUNT_SID,
        time_ms=round(time.time() * 1000), content_type="", body=b"",
    )  # fmt: skip
    await publish(connection, [to_message(event, "")])
    await connection.close()


async def test_all_is_well_and_little_is_asked(local, nats_server, service):
    await heard(nats_server.url, "/webhooks/taskrouter")
    await heard(nats_server.url, "/rest/taskrouter/events")
    mapper = service("mapper", TAJO_NATS_URL=nats_server.url)
    await asyncio.to_thread(mapper.start, ready=True)

    done = await local.test(
        TAJO_NATS_URL=nats_server.url,
        TAJO_MAPPER_PORT=mapper.url.rpartition(":")[2],
        TAJO_MAPPER_HOST="0.0.0.0",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(FIRST)
    for said in (
        "✓ Brevo API key valid (plan Marketing Standard)", "✓ Brevo attributes and lists good; will be made: FLEX_IDENTITY",
        "✓ NATS reachable", "✓ Streams and consumers as they should be", "✓ Webhooks heard: the last one", "✓ mapper ready",
        "! ingest: does not answer on 127.0.0.1:9",
    ):  # fmt: skip
        assert said in done.stdout
    assert "✗" not in done.stdout
    assert set(local.twilio.answered.values()) == {1}  # each once
    assert local.twilio.answered.total() == 5
    assert "FLEX_IDENTITY" not in local.brevo.account.attributes  # looked at, and not made


async def test_the_token_that_signs_is_looked_at_beside_the_key_that_reads(local):
    reading = {"TWILIO_API_KEY_SID": KEY_SID, "TWILIO_API_KEY_SECRET": KEY_SECRET}

    good = await local.test(**reading)
    bad = await local.test(**reading, TWILIO_AUTH_TOKEN="another")

    assert f"{FIRST}✓ Auth token 1 known to Twilio\n" in good.stdout
    assert f"{FIRST}✗ Auth token 1: Twilio does not know it\n" in bad.stdout
    assert bad.returncode == 1


async def test_a_token_left_over_from_a_rotation_is_a_warning_and_the_other_is_used(local, nats_server):
    done = await local.test(TAJO_NATS_URL=nats_server.url, TWILIO_AUTH_TOKEN=f"left-over,{TOKEN}")

    assert done.stdout.startswith(f"{FIRST}! Auth token 1: Twilio does not know it\n")
    assert done.returncode == 0


def of_flex(**changed) -> Fault:
    return Fault("status", status=200, path="/twilio/flex", times=None, body={**CONFIGURATION, **changed})


OTHER = "WS" + "9" * 32
WRONG_KEY = Fault("status", status=401, times=None, body={"code": "unauthorized", "message": "Key not found"})
ROWS = {
    "invalid sid or token": (Fault("status", status=401, path="/twilio", times=None), "",
        "✗ Flex API connection: 401, Twilio error 20003: Twilio does not know this account sid",
        "copy both anew from console.twilio.com"),
    "Flex not enabled": (Fault("status", status=403, path="/twilio/flex", times=None), "",
        "✗ Flex API connection: 403, Twilio error 20403", "is Flex enabled in this account"),
    "no Flex": (Fault("status", status=404, path="/twilio/flex", times=None), "",
        "✗ Flex API connection: this account has no Flex", "enable Flex in the Console"),
    "another account": (of_flex(account_sid="AC" + "0" * 32), "",
        "✗ Flex API connection: these credentials are another account's", "set TWILIO_ACCOUNT_SID to theirs"),
    "missing conversations": (of_flex(chat_service_instance_sid=None), "",
        "✗ Conversations API: Flex names no chat service", "enable Flex Conversations"),
    "wrong chat service": (None, "chat_service_sid: ISgone",
        "✗ Conversations API: there is no chat service ISgone", "take poller.chat_service_sid out"),
    "workspace mismatch": (None, f"workspace_sid: {OTHER}",
        f"✗ TaskRouter workspace: this account has no workspace {OTHER}; Flex uses {WORKSPACE_SID}", "take poller.workspace_sid out"),
    "agents not readable": (Fault("status", status=403, path="/twilio/taskrouter/v1/Workspaces/" + WORKSPACE_SID + "/Workers", times=None), "",
        "✗ Agent list: 403", "may the API key read TaskRouter"),
    "queues not readable": (Fault("status", status=500, path="/twilio/taskrouter/v1/Workspaces/" + WORKSPACE_SID + "/TaskQueues", times=None), "",
        "✗ Queue configuration: Twilio does not answer as it should", "status.twilio.com"),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
async def test_a_fault_at_twilio_is_named_with_its_cause_and_remedy(local, row):
    fault, poller, said, remedy = ROWS[row]
    local.twilio.faults += [fault] if fault else []

    done = await local.test(**(local.config(poller) if poller else {}))

    assert done.returncode == 1
    line, after = next(
        (line, after)
        for line, after in zip(done.stdout.splitlines(), done.stdout.splitlines()[1:], strict=False)
        if line.startswith(said)
    )
    assert remedy in after, line


async def test_what_hangs_on_flex_is_not_asked_once_flex_refuses(local):
    local.twilio.faults += [Fault("status", status=401, path="/twilio", times=None)]

    done = await local.test()

    assert done.stdout.count("not looked at, because Flex does not say where it is") == 4
    assert local.twilio.answered.total() == 1


BREVO = {
    "unknown address": ([Fault("status", status=401, times=None)], "✗ Brevo API key: Brevo does not know our IP address", "allow it at app.brevo.com/security/authorised_ips"),
    "wrong key": ([WRONG_KEY], "✗ Brevo API key: Brevo refuses our API key", "make a key at app.brevo.com"),
    "not reachable": ([Fault("reset", times=None)], "✗ Brevo API key: Brevo cannot be reached", "is the network there"),
}  # fmt: skip


@pytest.mark.parametrize("row", BREVO)
async def test_a_fault_at_brevo_is_named_with_its_cause_and_remedy(local, row):
    faults, said, remedy = BREVO[row]
    local.brevo.faults += faults

    done = await local.test()

    assert done.returncode == 1
    assert said in done.stdout
    assert remedy in done.stdout


async def test_an_attribute_of_another_type_and_a_missing_list_are_named(local):
    local.brevo.account.lists.pop(33)
    local.brevo.account.attributes["AVG_WAIT_TIME"] = type(local.brevo.account.attributes["FIRSTNAME"])(
        "AVG_WAIT_TIME", "normal", "text"
    )

    done = await local.test()

    assert done.returncode == 1
    assert "attribute AVG_WAIT_TIME is text at Brevo and must be float; list 33 does not exist" in done.stdout


async def test_a_broker_that_is_away_or_not_as_it_should_be_is_named(local, nats_server):
    away = await local.test()
    connection = await nats.connect(nats_server.url)
    await connection.jetstream().delete_stream("RECEIPTS")
    await connection.jetstream().delete_consumer("TWILIO", "mapper")
    await connection.close()
    changed = await local.test(TAJO_NATS_URL=nats_server.url)

    assert "✗ NATS: no broker answers" in away.stdout
    assert (
        "✗ Streams and consumers: no stream RECEIPTS; no consumer mapper\n    run tajo bootstrap"
        in changed.stdout
    )
    assert (away.returncode, changed.returncode) == (1, 1)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("deploy/nats/nats.conf", "✓ Writes to disk before every ack"),
        ("", "✗ Writes to disk: the broker syncs them later"),
    ],
)
async def test_a_broker_that_acks_before_it_syncs_is_named_where_its_monitoring_is_open(
    local, free_port, tmp_path, config, said
):
    port, monitoring = free_port(), free_port()
    command = embedded.command(config=ROOT / config, store=tmp_path / "nats", host="127.0.0.1", port=port)
    if not config:
        command = [*command[:1], *command[3:], "--jetstream"]
    with subprocess.Popen([*command, "--http_port", str(monitoring)], stderr=subprocess.DEVNULL) as broker:  # noqa: ASYNC220 - returns at once
        try:
            while not embedded.answers("127.0.0.1", port):
                assert broker.poll() is None
                await asyncio.sleep(0.01)
            done = await local.test(
                TAJO_NATS_URL=f"nats://127.0.0.1:{port}",
                TAJO_NATS_MONITORING_URL=f"http://127.0.0.1:{monitoring}",
            )
        finally:
            broker.terminate()

    assert said in done.stdout


async def test_webhooks_that_do_not_arrive_are_a_warning_and_no_failure(local, nats_server):
    none_yet = await local.test(TAJO_NATS_URL=nats_server.url)
    await heard(nats_server.url, "/rest/taskrouter/events")
    only_polled = await local.test(TAJO_NATS_URL=nats_server.url)

    assert "! Webhooks: none was heard yet" in none_yet.stdout
    assert "! Webhooks: none of the last 1 raw events came by one" in only_polled.stdout
    assert "does the Flex plugin run?" in only_polled.stdout
    assert (none_yet.returncode, only_polled.returncode) == (0, 0)


async def test_programs_get_the_same_as_json(local, nats_server):
    local.twilio.faults += [Fault("status", status=403, path="/twilio/flex", times=None)]

    done = await local.test("--json", TAJO_NATS_URL=nats_server.url)

    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert (told["connector"], told["ok"]) == ("twilio-flex", False)
    assert told["findings"][0]["status"] == "failed"
    assert "is Flex enabled" in told["findings"][0]["remedy"]
    assert {one["name"] for one in told["findings"]} > {"NATS", "Brevo API key", "ingest", "poller"}


async def test_settings_that_cannot_be_used_are_78(local):
    nobody = await local.test(TWILIO_AUTH_TOKEN="")
    plain = await local.test(TAJO_TWILIO_FLEX_URL="http://flex.example.com")
    no_file = await local.test(TAJO_CONFIG="nowhere.yaml")

    assert [done.returncode for done in (nobody, plain, no_file)] == [78, 78, 78]
    assert "run tajo connectors install twilio-flex" in nobody.stderr
    assert "TAJO_TWILIO_FLEX_URL is not https" in plain.stderr
    assert "nowhere.yaml" in no_file.stderr
