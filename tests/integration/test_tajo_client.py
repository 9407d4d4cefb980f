"""docs/client.md as it stands there: its programs run against a whole installation that knows only what was stored."""

import asyncio
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.items import Conversation
from sandbox.limits import Limits
from sandbox.rest import TwilioSandbox
from sandbox.task import at
from sandbox.twilio import ACCOUNT_SID, WORKSPACE_SID
from tajo.client import NotTakenError, TajoClient

ROOT = Path(__file__).parents[2]
CONNECT, TELL, SYNC, WRONG = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs/client.md").read_text(), re.DOTALL
)
PRODUCTS = ("FLEX", "TASKROUTER", "CONVERSATIONS", "EVENTS")
TOKEN, BREVO_KEY, TAJO_KEY = (
    "5ecret0f7wilio5ecret0f7wilio5ecr",
    "xkeysib-s3cret-of-brevo",
    "5ecret-of-tajo-5ecret",
)
SECRETS = (TOKEN, BREVO_KEY, TAJO_KEY)
FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)
BINDING = {"messaging_binding": {"type": "sms", "address": "+12025550199", "proxy_address": "+15005550006"}}
TASK = "WT0123456789abcdef0123456789abcdef"


async def run(program: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, **environ}, capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not any(secret in done.stdout + done.stderr for secret in SECRETS)
    return done


def of_family(pid: int) -> list[bytes]:
    """Command line and environment of a process and its children."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    assert len(pids) > 4
    return [Path(f"/proc/{one}/{what}").read_bytes() for one in pids for what in ("cmdline", "environ")]


async def test_what_was_connected_starts_with_no_secret_in_its_environment_and_is_told_of_events(everything):
    brevo = BrevoSandbox(api_key=BREVO_KEY, limits=FAST)
    past = Conversation("long ago", at("09:00:00.000"), at("09:10:00.000"), participants=[BINDING])
    async with serving(brevo, TwilioSandbox(token=TOKEN, conversations=[past])) as url:
        tajo = everything(
            TAJO_BREVO_URL=f"{url}/v3",
            **{f"TAJO_TWILIO_{name}_URL": f"{url}/twilio/{name.lower()}" for name in PRODUCTS},
        )
        given = {
            "MY_TAJO_KEY": TAJO_KEY,
            "MY_BREVO_KEY": BREVO_KEY,
            "MY_ACCOUNT_SID": ACCOUNT_SID,
            "MY_AUTH_TOKEN": TOKEN,
        }
        connected = [await run(CONNECT, {**tajo.environment, **given}) for _ in range(2)]
        await asyncio.to_thread(tajo.start, ready=True)
        family = of_family(tajo.process.pid)

        for _ in range(2):  # told twice it is told once
            await run(TELL, tajo.environment)
        wrong = await run(WRONG, tajo.environment)
        told = await events(brevo, 3)
        contact = brevo.contact(email_id="maria.lopez@example.com")
        await polls(tajo.others[-1])  # the poller has the credentials, too
        synced = await run(SYNC, tajo.environment)
        log = await asyncio.to_thread(tajo.end)

    assert [done.stdout for done in connected] == [f"{WORKSPACE_SID} True\n", f"{WORKSPACE_SID} False\n"]
    assert wrong.stdout == (
        "no event of the type 'task.exploded' can be told; there are task.completed, survey.completed\n"
    )
    assert synced.stdout.splitlines()[0] == "conversations done 3 3 "  # begun, closed, and who took part
    assert synced.stdout.splitlines()[1].startswith("True ")
    resolved = told.pop("SUPPORT_RESOLVED")
    assert (resolved["task_sid"], resolved["channel"], resolved["queue"], resolved["duration_seconds"]) == (
        TASK, "voice", "Support Voice", 228,
    )  # fmt: skip
    assert told["CSAT_SUBMITTED"]["csat_score"] == 5
    assert told.keys() == {"CSAT_SUBMITTED", "CONVERSATION_ENDED"}
    assert contact.attributes["CSAT_SCORE"] == 5
    assert not any(secret.encode() in one for secret in SECRETS for one in [*family, log])


async def polls(url: str) -> None:
    """Return once the poller has polled."""
    deadline = time.monotonic() + 60
    async with httpx.AsyncClient() as client:
        while (said := (await client.get(f"{url}/health/ready")).text) != "ready\n":
            assert time.monotonic() < deadline, said
            await asyncio.sleep(0.05)


async def events(brevo: BrevoSandbox, count: int) -> dict[str, dict]:
    """What Brevo was told, by event name, once so many are there; and that they stay as many."""
    deadline = time.monotonic() + 90
    while len(brevo.events) < count:
        assert time.monotonic() < deadline, brevo.state()
        await asyncio.sleep(0.1)
    found = {event.name: event.properties for event in brevo.events}
    assert len(brevo.events) == len(found) == count
    return found


async def test_ingest_that_is_away_or_knows_another_key_is_named(nats_server, service, tmp_path):
    ingest = service(
        "ingest", TAJO_NATS_URL=nats_server.url, TWILIO_AUTH_TOKEN="x", TAJO_API_KEY="another-key-another-key"
    )
    environ = {"TAJO_API_KEY": TAJO_KEY, "TAJO_DATA_DIR": str(tmp_path / "tajo/data")}
    told = {"type": "task.completed", "payload": {"task_sid": TASK}}
    nowhere = TajoClient(environ=environ, ingest_url=ingest.url)
    with pytest.raises(NotTakenError, match=r"it does not answer \(ConnectError\): does it run there"):
        await nowhere.connectors.handle_event("twilio-flex", **told)
    await asyncio.to_thread(ingest.start, ready=True)

    for type_, payload in (
        ("task.completed", {"task_sid": TASK}),
        ("survey.completed", {"task_sid": TASK, "score": 1}),
    ):
        with pytest.raises(NotTakenError, match="knows another TAJO_API_KEY") as caught:
            await nowhere.connectors.handle_event("twilio-flex", type=type_, payload=payload)
        assert TAJO_KEY not in str(caught.value)

    async with TajoClient(api_key="another-key-another-key", environ=environ, ingest_url=ingest.url) as tajo:
        await tajo.connectors.handle_event("twilio-flex", **told)
