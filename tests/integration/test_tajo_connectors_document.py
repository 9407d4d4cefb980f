"""docs/connectors.md shows what the commands print, one after the other, with everything running.

`pytest tests/integration/test_tajo_connectors_document.py --rewrite-stories` writes what is shown anew.
"""

import asyncio
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.limits import Limits
from sandbox.rest import TwilioSandbox
from tajo.client import TajoClient

DOCUMENT = Path(__file__).parents[2] / "docs/connectors.md"
BLOCK = re.compile(r"```console\n\$ (.*?)\n(.*?)```", re.DOTALL)
PRODUCTS = ("FLEX", "TASKROUTER", "CONVERSATIONS", "EVENTS")
TOKEN, BREVO_KEY, TAJO_KEY = (
    "5ecret0f7wilio5ecret0f7wilio5ecr",
    "xkeysib-s3cret-of-brevo",
    "5ecret-of-tajo-5ecret",
)
VARIES = (
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "2026-11-20T10:00:00.000Z"),
    (r"\d+ seconds ago", "3 seconds ago"),
    (r" +$", ""),
)
FAST = Limits(
    contacts_per_s=1000, contacts_per_h=None, events_per_s=1000, events_per_h=None, other_per_h=None
)


def settled(text: str) -> str:
    """The text, with what is never the same twice put right."""
    for pattern, instead in VARIES:
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return text


async def run(command: str, environ: dict[str, str]) -> str:
    program, *arguments = shlex.split(command)
    assert program == "tajo"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tajo", *arguments],
        env={**os.environ, **environ}, input=f"{TOKEN}\n{BREVO_KEY}\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return settled(done.stdout)


async def polls(url: str) -> None:
    """Return once the poller has polled."""
    deadline = time.monotonic() + 60
    async with httpx.AsyncClient() as client:
        while (said := (await client.get(f"{url}/health/ready")).text) != "ready\n":
            assert time.monotonic() < deadline, said
            await asyncio.sleep(0.05)


@pytest.mark.timeout(240)
async def test_the_document_shows_what_the_commands_print(everything, request):
    brevo = BrevoSandbox(api_key=BREVO_KEY, limits=FAST)
    text = DOCUMENT.read_text()
    shown = BLOCK.findall(text)
    printed = []
    async with serving(brevo, TwilioSandbox(token=TOKEN)) as url:
        tajo = everything(
            TAJO_BREVO_URL=f"{url}/v3", TAJO_PUBLIC_URL="https://hooks.example.com", TAJO_API_KEY=TAJO_KEY, COLUMNS="120",
            **{f"TAJO_TWILIO_{name}_URL": f"{url}/twilio/{name.lower()}" for name in PRODUCTS},
        )  # fmt: skip
        for command, _ in shown:
            if " test " in command:
                await asyncio.to_thread(tajo.start, ready=True)
                await polls(tajo.others[-1])
                async with TajoClient(environ=tajo.environment) as client:
                    survey = {"score": 5, "customer_email": "ana@example.com"}
                    await client.connectors.handle_event(
                        "twilio-flex", type="survey.completed", payload=survey
                    )
            printed.append((command, await run(command, tajo.environment)))
        await asyncio.to_thread(tajo.end)
    if request.config.getoption("--rewrite-stories"):
        outputs = iter(printed)
        DOCUMENT.write_text(BLOCK.sub(lambda _: "```console\n$ {}\n{}```".format(*next(outputs)), text))

    assert len(printed) == 5
    assert [(command, settled(output)) for command, output in BLOCK.findall(DOCUMENT.read_text())] == printed
