"""`tajo connectors install`, `list` and `remove` as processes, against the local Twilio and Brevo."""

import asyncio
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections import Counter
from pathlib import Path

import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.rest import CHAT_SERVICE_SID, TwilioSandbox
from sandbox.twilio import ACCOUNT_SID, WORKSPACE_SID
from shared.credentials import store_of

ROOT = Path(__file__).parents[2]
PRODUCTS = ("FLEX", "TASKROUTER", "CONVERSATIONS", "EVENTS")
TOKEN, BREVO_KEY = "5ecret0f7wilio5ecret0f7wilio5ecr", "xkeysib-s3cret-of-brevo"
KEY_SID, KEY_SECRET = "SK" + "7" * 32, "5ecretOfTheKey5ecretOfTheKey5ecr"
TAJO_KEY = "5ecret-of-tajo-5ecret"
SECRETS = (TOKEN, BREVO_KEY, KEY_SECRET, TAJO_KEY)
PUBLIC = "https://hooks.example.com/tajo"
CALLBACK = f"{PUBLIC}/webhooks/taskrouter#rc=5&rp=all"
GIVEN = ("--account-sid", ACCOUNT_SID, "--auth-token", "-", "--brevo-api-key", "-")
STDIN = f"{TOKEN}\n{BREVO_KEY}\n"


class Local:
    """The local Twilio and Brevo, and the command line that is told of them and of nothing else."""

    def __init__(self, url: str, twilio: TwilioSandbox, brevo: BrevoSandbox, folder: Path) -> None:
        self.twilio, self.brevo, self.folder = twilio, brevo, folder
        self.environ = {
            "PATH": os.environ["PATH"],
            "TAJO_DATA_DIR": str(folder / "tajo/data"),
            "TAJO_CONFIG": str(ROOT / "config/tajo.yaml"),
            "TAJO_BREVO_URL": f"{url}/v3",
            "TAJO_PUBLIC_URL": PUBLIC,
            "TAJO_NATS_URL": "nats://127.0.0.1:9",
            "COLUMNS": "200",
            **{f"TAJO_TWILIO_{name}_URL": f"{url}/twilio/{name.lower()}" for name in PRODUCTS},
        }

    async def tajo(
        self, *arguments: str, stdin: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `tajo connectors …`; whatever it prints, no secret is in it."""
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "tajo", "connectors", *arguments],
            env={**self.environ, **environ}, input=stdin, capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        assert [secret for secret in SECRETS if secret in done.stdout + done.stderr] == []
        assert "Traceback" not in done.stderr
        return done

    async def install(self, *more: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return await self.tajo("install", "twilio-flex", *GIVEN, *more, stdin=STDIN, **environ)

    def stored(self) -> dict[str, str]:
        found = store_of(self.environ).read().get("twilio-flex")
        return found.values if found else {}

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
async def local(tmp_path):
    twilio, brevo = (
        TwilioSandbox(token=TOKEN, api_keys={KEY_SID: KEY_SECRET}),
        BrevoSandbox(api_key=BREVO_KEY),
    )
    async with serving(brevo, twilio) as url:
        yield Local(url, twilio, brevo, tmp_path)


def calls(twilio: TwilioSandbox) -> Counter:
    return Counter({what: count for what, count in twilio.answered.items() if " 20" in what})


# -- install ------------------------------------------------------------------------------------------------


async def test_what_works_is_stored_encrypted_and_the_console_is_told_what_to_paste(local):
    done = await local.install("--flex-flow-sid", "FO" + "1" * 32)

    assert done.returncode == 0, done.stderr
    for said in (
        ACCOUNT_SID, WORKSPACE_SID, CHAT_SERVICE_SID, CALLBACK, f"{PUBLIC}/webhooks/event-streams",
        f"{PUBLIC}/webhooks/conversations", "tajo connectors test twilio-flex",
    ):  # fmt: skip
        assert said in done.stdout
    assert local.stored() == {
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": TOKEN, "BREVO_API_KEY": BREVO_KEY,
        "TAJO_FLEX_FLOW_SID": "FO" + "1" * 32,
    }  # fmt: skip
    assert not any(secret.encode() in held for held in local.files().values() for secret in SECRETS)
    assert local.twilio.answered.total() == 2
    assert local.twilio.callback_url is None


async def test_installing_again_changes_nothing(local):
    await local.install()
    before = local.files()

    again = await local.install("--json")
    without_options = await local.tajo("install", "twilio-flex", "--json")

    assert (again.returncode, without_options.returncode) == (0, 0)
    assert [json.loads(done.stdout)["changed"] for done in (again, without_options)] == [False, False]
    assert local.files() == before


async def test_options_may_come_from_the_environment_and_from_files(local, tmp_path):
    (tmp_path / "secret").write_text(KEY_SECRET + "\n")

    done = await local.tajo(
        "install", "twilio-flex", TWILIO_ACCOUNT_SID=ACCOUNT_SID, TWILIO_AUTH_TOKEN=TOKEN, TWILIO_API_KEY_SID=KEY_SID,
        TWILIO_API_KEY_SECRET_FILE=str(tmp_path / "secret"), TAJO_API_KEY=TAJO_KEY,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert local.stored() == {
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID, "TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_API_KEY_SID": KEY_SID,
        "TWILIO_API_KEY_SECRET": KEY_SECRET, "TAJO_API_KEY": TAJO_KEY,
    }  # fmt: skip
    assert "give it Brevo's key" in done.stdout
    assert local.twilio.answered.total() == 4  # the key and the token, each


def talk(
    command: list[str], environ: dict[str, str], answers: list[tuple[str, str, bool]]
) -> tuple[int, str]:
    """Run a command on a terminal, and answer what it asks: (what it says, the answer, whether that is hidden)."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, env=environ, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, start_new_session=True
    )
    os.close(theirs)
    said, deadline = "", time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            waits = bool(answers) and answers[0][0] in said
            # What is typed before the terminal hides it would be thrown away, and shown.
            if waits and (not answers[0][2] or not termios.tcgetattr(ours)[3] & termios.ECHO):
                os.write(ours, f"{answers.pop(0)[1]}\n".encode())
            elif select.select([ours], [], [], 0.02)[0]:
                said += os.read(ours, 4096).decode(errors="replace")
    except OSError:  # it has ended
        return process.wait(30), said
    finally:
        os.close(ours)
        process.kill()
        process.wait(30)
    pytest.fail(said)


async def test_on_a_terminal_what_is_missing_is_asked_for_and_never_echoed(local):
    asked = [
        ("account sid", ACCOUNT_SID, False),
        ("auth token", TOKEN, True),
        ("Brevo API key", BREVO_KEY, True),
    ]
    command = [sys.executable, "-m", "tajo", "connectors", "install", "twilio-flex"]

    code, said = await asyncio.to_thread(talk, command, local.environ, asked)

    assert code == 0, said
    assert ACCOUNT_SID in said
    assert TOKEN not in said
    assert BREVO_KEY not in said
    assert local.stored()["BREVO_API_KEY"] == BREVO_KEY


REFUSALS = {
    "a wrong token": ([Fault("status", status=401, times=None, path="/twilio/flex")], "", "Twilio does not know this account sid"),
    "no right to Flex": ([Fault("status", status=403, times=None, path="/twilio/flex")], "", "is Flex enabled in this account"),
    "no Flex": ([Fault("status", status=404, times=None, path="/twilio/flex")], "", "this account has no Flex"),
    "no workspace": ([Fault("status", status=404, times=None, path="/twilio/taskrouter")], "", "has no TaskRouter workspace"),
    "no answer": ([Fault("reset", times=None, path="/twilio/flex")], "", "/v1/Configuration"),
    "Brevo's allow-list": ([], 401, "allow it at app.brevo.com/security/authorised_ips"),
    "Brevo's wrong key": ([], {"code": "unauthorized", "message": "Key not found"}, "Brevo refuses our API key"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSALS)
async def test_what_does_not_work_is_not_stored_and_the_cause_is_named(local, why):
    faults, brevo, said = REFUSALS[why]
    local.twilio.faults += faults
    if brevo:
        local.brevo.faults += [Fault("status", status=401, body=None if brevo == 401 else brevo)]

    done = await local.install()

    assert done.returncode == 1
    assert said in done.stderr
    assert local.files() == {}


async def test_what_cannot_be_right_is_all_named_at_once_and_nobody_is_called(local):
    malformed = await local.tajo(
        "install", "twilio-flex", "--account-sid", "AC-s3cret", "--auth-token", "-", "--api-key-sid", KEY_SID,
        "--flex-flow-sid", "x", stdin="5ecret 0f twilio\n",
    )  # fmt: skip
    nothing = await local.tajo("install", "twilio-flex")
    unknown = await local.tajo("install", "hubspot")
    no_line = await local.tajo("install", "twilio-flex", "--auth-token", "-")

    assert [done.returncode for done in (malformed, nothing, unknown, no_line)] == [78, 78, 2, 2]
    for name in ("TWILIO_ACCOUNT_SID is not well formed", "TWILIO_AUTH_TOKEN is not well formed", "TAJO_FLEX_FLOW_SID",
                 "TWILIO_API_KEY_SID and TWILIO_API_KEY_SECRET belong together"):  # fmt: skip
        assert name in malformed.stderr
    assert "s3cret" not in malformed.stderr
    assert "5ecret" not in malformed.stderr
    assert nothing.stderr.splitlines() == [
        "TWILIO_ACCOUNT_SID is not set: --account-sid",
        "TWILIO_AUTH_TOKEN is not set: Twilio signs webhooks with it; --auth-token",
    ]
    assert "no connector is called hubspot; there is twilio-flex" in unknown.stderr
    assert local.twilio.answered.total() == 0
    assert local.files() == {}


async def test_unchecked_it_is_stored_and_nobody_is_called(local):
    done = await local.install("--no-check")

    assert done.returncode == 0
    assert local.stored()["TWILIO_AUTH_TOKEN"] == TOKEN
    assert local.twilio.answered.total() == 0


async def test_a_store_that_does_not_open_is_said_by_every_command(local):
    await local.install()
    (local.folder / "tajo/master.key").chmod(0o644)

    for command in (
        ["install", "twilio-flex"],
        ["list"],
        ["test", "twilio-flex"],
        ["remove", "twilio-flex", "--yes"],
    ):
        done = await local.tajo(*command)
        assert done.returncode == 78, command
        assert "may be read by others: chmod 600" in done.stderr


# -- Event Streams and the event callback -------------------------------------------------------------------


async def test_event_streams_are_made_once_and_completed_where_types_are_missing(local):
    streams = local.twilio.streams
    first = await local.install("--event-streams", "--yes", "--json")
    made = json.loads(first.stdout)["event_streams"]
    (sink,), (subscription,) = streams.sinks.values(), streams.subscriptions
    types = dict(streams.subscribed[subscription])

    again = await local.install("--event-streams", "--yes", "--json")
    removed = [streams.subscribed[subscription].pop(name) for name in list(types)[:3]]
    third = await local.install("--event-streams", "--yes", "--json")

    assert made["made"] == ["sink", "subscription"]
    assert sink["sink_configuration"] == {
        "destination": f"{PUBLIC}/webhooks/event-streams", "method": "POST", "batch_events": True,
    }  # fmt: skip
    assert types["com.twilio.taskrouter.task.completed"] == 4
    assert types["com.twilio.conversations.conversation-state.updated"] == 2
    assert not any(".message." in name for name in types)  # what people write, unless it is asked for
    assert json.loads(again.stdout)["event_streams"] == {**made, "made": [], "added": []}
    assert len(json.loads(third.stdout)["event_streams"]["added"]) == len(removed)
    assert streams.subscribed[subscription] == types
    assert len(streams.sinks) == len(streams.subscriptions) == 1


async def test_a_sink_whose_subscription_did_not_come_about_is_gone_on_with(local):
    local.twilio.faults += [Fault("reset", path="/twilio/events/v1/Subscriptions", method="POST")]

    failed = await local.install("--event-streams", "--yes")
    again = await local.install("--event-streams", "--yes")

    assert failed.returncode == 1
    assert "it may have taken effect\nrun it again" in failed.stderr
    assert local.stored()
    assert again.returncode == 0
    assert len(local.twilio.streams.sinks) == len(local.twilio.streams.subscriptions) == 1


async def test_without_consent_or_an_address_twilio_could_call_nothing_is_made(local):
    unasked = await local.install("--event-streams")
    nowhere = await local.install("--event-streams", "--yes", TAJO_PUBLIC_URL="http://127.0.0.1:8080")

    assert unasked.returncode == 1
    assert f"Make a webhook sink to {PUBLIC}" in unasked.stderr
    assert nowhere.returncode == 78
    assert "TAJO_PUBLIC_URL is not an https URL that Twilio can call" in nowhere.stderr
    assert local.twilio.streams.sinks == {}


async def test_a_type_the_account_does_not_have_is_left_out_and_named(local):
    from sandbox import streams  # noqa: PLC0415 - its catalogue is what is changed

    gone = "com.twilio.taskrouter.workflow.timeout"
    kept = streams.TYPES.pop(gone)
    try:
        done = await local.install("--event-streams", "--yes")
    finally:
        streams.TYPES[gone] = kept

    assert done.returncode == 0
    assert f"not to be had in this account: {gone}" in done.stdout


async def test_another_callback_is_never_overwritten_unasked_and_its_secrets_are_not_shown(local):
    local.twilio.callback_url = "https://user:hunter2@crm.example.com/events?token=hunter2"
    local.twilio.events_filter = "task.created"

    kept = await local.install("--set-event-callback")
    still = local.twilio.callback_url
    forced = await local.install("--set-event-callback", "--force")

    assert kept.returncode == 1
    assert "is another's and stays: https://…@crm.example.com/events?…; --force overwrites it" in kept.stdout
    assert still == "https://user:hunter2@crm.example.com/events?token=hunter2"
    assert forced.returncode == 0
    assert local.twilio.callback_url == CALLBACK
    assert "its events filter lets through only task.created" in forced.stdout
    assert "hunter2" not in kept.stdout + forced.stdout


async def test_our_callback_is_set_where_none_stands_and_once(local):
    first = await local.install("--set-event-callback", "--json")
    again = await local.install("--set-event-callback", "--json")

    assert local.twilio.callback_url == CALLBACK
    assert json.loads(first.stdout)["event_callback"]["state"] == "set"
    assert json.loads(again.stdout)["event_callback"]["state"] == "there"
    assert calls(local.twilio)["POST /twilio/taskrouter/v1/Workspaces/… 200"] == 1


# -- list and remove ----------------------------------------------------------------------------------------


async def test_a_list_says_where_each_value_comes_from_and_shows_none(local):
    nothing = await local.tajo("list", "--json")
    await local.install()

    shown = await local.tajo("list", BREVO_API_KEY="of the environment")
    told = json.loads((await local.tajo("list", "--json", BREVO_API_KEY="of the environment")).stdout)[0]

    assert json.loads(nothing.stdout)[0]["installed"] is False
    assert (told["connector"], told["installed"], told["account_sid"]) == ("twilio-flex", True, ACCOUNT_SID)
    assert told["values"]["TWILIO_AUTH_TOKEN"] == "store"
    assert told["values"]["BREVO_API_KEY"] == "environment"
    assert told["values"]["TAJO_API_KEY"] == "not set"
    assert ACCOUNT_SID in shown.stdout
    assert "of the environment" not in shown.stdout


async def test_removing_asks_and_then_forgets_the_credentials_and_nothing_else(local):
    await local.install("--event-streams", "--yes")

    unasked = await local.tajo("remove", "twilio-flex")
    kept = local.stored()
    removed = await local.tajo("remove", "twilio-flex", "--yes")
    again = await local.tajo("remove", "twilio-flex", "--yes")

    assert unasked.returncode == 1
    assert kept
    assert (removed.returncode, again.returncode) == (0, 0)
    assert local.stored() == {}
    assert "What stays: the log, the book and everything at Brevo" in removed.stdout
    assert "nothing was stored" in again.stdout
    assert len(local.twilio.streams.sinks) == 1


async def test_removing_event_streams_deletes_ours_and_leaves_others(local):
    await local.install("--event-streams", "--yes")
    await local.install("--event-streams", "--yes", TAJO_PUBLIC_URL="https://another.example.com")

    done = await local.tajo("remove", "twilio-flex", "--event-streams", "--yes", "--json")

    deleted = json.loads(done.stdout)["deleted"]
    assert [sid[:2] for sid in deleted] == ["DF", "DG"]
    (left,) = local.twilio.streams.sinks.values()
    assert left["sink_configuration"]["destination"] == "https://another.example.com/webhooks/event-streams"
    assert len(local.twilio.streams.subscriptions) == 1
    assert local.stored() == {}


async def test_what_cannot_be_deleted_at_twilio_keeps_the_credentials(local):
    await local.install("--event-streams", "--yes")
    local.twilio.faults += [Fault("status", status=403, times=None, method="DELETE")]

    done = await local.tajo("remove", "twilio-flex", "--event-streams", "--yes")

    assert done.returncode == 1
    assert local.stored()
