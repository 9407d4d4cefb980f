"""docs/cli.md and docs/connectors.md against the commands: each block is run, in order, on one deployment, and must say
what it says there.

A block is

    <!-- cli: exit=1 TAJO_NATS_URL=nats://127.0.0.1:9 -->
    ```console
    $ tajo connectors status twilio-flex
    …
    ```

The comment is optional: the exit code of each of its commands (else 0), lines for their standard input, by comma, and
environment for them on top of the deployment's; {NAME} in a value is a variable of the deployment, or of `Deployment.made_up`.  What a command prints is
compared after VARIES, but for empty lines around it.  `pytest tests/integration/test_cli_documented.py --rewrite-cli` writes it anew.
"""

import asyncio
import difflib
import os
import random
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import typer.main
from typer.core import TyperGroup

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.day import webhooks
from sandbox.expected import CONTACTS
from sandbox.play import Target, play, wait_until_equal
from sandbox.rest import TwilioSandbox
from sandbox.traffic import traffic
from sandbox.twilio import signed
from tajo.deployment import status
from tajo.main import app

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = (ROOT / "docs/cli.md", ROOT / "docs/connectors.md")
BLOCK = re.compile(
    r"(?:<!-- cli: (?P<told>.*?) -->\n)?```console\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)

MACHINE = "machine"  # instead of the name of the one that this runs on
DAY = (16, 9, 3)
"""The sandbox's: conversations, 15 of its contacts and one withheld; customers; agents."""

MISSED = sorted(traffic(60, random.Random(3))[1], key=lambda event: event.time_ms)
"""What Twilio knows of further people, no webhook told, and is too long ago to be polled."""

VARIES = (
    (r"\d+ (seconds?|minutes?) ago", "<duration> ago"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
    (r"\d{4}-\d\d-\d\d", "<date>"),
    (r"\b[machine]+-(\d+|[0-9a-f]{12})\b", "<instance>"),
    (r"127\.0\.0\.1:\d+", "<address>"),
    (r"\b[0-9a-f]{32}\b", "<trace>"),
    (r"\b(TWILIO|BREVO|RECEIPTS):\d+", r"\1:<sequence>"),
    (r"\bp[0-9a-f]{48}\b", "<password>"),
    (r'"ms": \d+', '"ms": <number>'),
    (r"[\d.,]+ (ms|s|min|h)\b", "<duration>"),
    (r"[\d.,]+/s\b", "<rate>"),
    (r"\b([0-9a-f]{64}|[0-9a-f]{16})\b", "<hash>"),
    (r'("heardAgoS"|"delivered"): [\d.]+', r"\1: <number>"),  # how many contacts are superseded is chance
    (r"^ *(sequence|trace) .*$", r"\1 <varies>"),  # which of two webhooks comes first is chance
    (r"\b00-[0-9a-f]{32}-[0-9a-f]{16}-01\b", "<traceparent>"),
    (r'("sequence": |"logsequence":")\d+', r"\1<sequence>"),
    (r"^│ +\d+ │ (?=<(time|date)>)", "│ <sequence> │ "),
    (r"[ ─━╌]{2,}", " "),  # columns are as wide as what varies
    (r" +$", ""),
)


@dataclass
class Block:
    """Commands that stand together, each with what it printed."""

    start: int  # in the document's text, of what stands between the fences
    end: int
    exit: int
    stdin: str
    environment: dict[str, str]
    commands: list[tuple[str, str]]


def blocks(text: str) -> Iterator[Block]:
    for found in BLOCK.finditer(text):
        told = dict(one.split("=", 1) for one in shlex.split(found["told"] or ""))
        code, stdin = int(told.pop("exit", "0")), told.pop("stdin", "").replace(",", "\n")
        commands = [
            (command.strip(), output)
            for command, output in re.findall(
                r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", found["text"], re.MULTILINE
            )
        ]
        yield Block(*found.span("text"), code, stdin, told, commands)


def normalised(text: str) -> str:
    for pattern, instead in VARIES:
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return text


class Deployment:
    """What the commands run against."""

    def __init__(self, environment: Mapping[str, str], made_up: Mapping[str, str]) -> None:
        ours = ("TAJO_", "TWILIO_", "BREVO_", "_TYPER", "FORCE_COLOR", "GITHUB_ACTIONS")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        plain = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}
        self.environment = {**inherited, **environment, **plain, "TAJO_CONFIG": "config/tajo.yaml"}
        self.made_up = made_up

    def run(self, command: str, block: Block) -> tuple[int, str]:
        """The exit code, and what a terminal would show; with nothing of this machine in it."""
        names = {**self.environment, **self.made_up}
        words = shlex.split(command.replace("\\\n", " "))
        environment = {**self.environment, **block.environment}
        while "=" in words[0]:
            name, _, environment[name] = words.pop(0).partition("=")
        assert words[0] == "tajo", f"only tajo is run: {command}"
        done = subprocess.run(
            [Path(sys.executable).with_name("tajo"), *words[1:]],
            env={name: value.format_map(names) if name in block.environment else value
                 for name, value in environment.items()},
            input=block.stdin.format_map(names), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, cwd=ROOT, check=False, timeout=120,
        )  # fmt: skip
        text = done.stdout.replace(self.environment["TAJO_DATA_DIR"], ".tajo/data")
        host = socket.gethostname()
        text = text.replace(f"{host}-", f"{(MACHINE * len(host))[: len(host)]}-")  # as wide
        lines = [line.rstrip() for line in text.splitlines()]
        return done.returncode, "\n".join(lines).strip("\n") + "\n" * bool(text.strip())


@pytest.mark.long
async def test_every_command_prints_what_the_documents_say(everything, request):
    wrong = codes = ""
    twilio = TwilioSandbox(events=MISSED, clock=lambda: MISSED[-1].time_ms / 1000 + 2 * 3600)
    async with serving(brevo := BrevoSandbox(), twilio) as url:
        deployment = await played(everything, brevo, twilio, url)
        for document in DOCUMENTS:
            said = await run(deployment, document.read_text())
            codes, wrong = codes + said.codes, wrong + said.wrong
            if request.config.getoption("--rewrite-cli"):
                document.write_text(said.text)
                wrong = ""
    assert not codes, codes
    assert not wrong, f"{wrong}\nIs it meant so: pytest {Path(__file__).relative_to(ROOT)} --rewrite-cli"


@dataclass
class Said:
    """What the commands of a document printed."""

    text: str = ""  # the document with that
    codes: str = ""  # exit codes that are others
    wrong: str = ""  # the differences


async def run(deployment: "Deployment", text: str) -> Said:
    said, at = Said(), 0
    for block in blocks(text):
        said.text += text[at : block.start]
        for command, documented in block.commands:
            code, output = await asyncio.to_thread(deployment.run, command, block)
            if code != block.exit:
                said.codes += f"$ {command}\nexit code {code}, not {block.exit}\n{output}\n"
            if (now := normalised(output)) != (then := normalised(documented)):
                said.wrong += f"$ {command}\n" + "\n".join(
                    difflib.unified_diff(
                        then.splitlines(), now.splitlines(), "documented", "now", lineterm=""
                    )
                )
            said.text += f"$ {command}\n{output}"
        at = block.end
    said.text += text[at:]
    return said


async def played(everything, brevo, twilio, url: str) -> Deployment:
    """All services, after the sandbox's day, with everything done; and one webhook signed with another token."""
    tajo = everything(
        TAJO_BREVO_URL=f"{url}/v3",
        BREVO_API_KEY=brevo.api_key,
        TWILIO_ACCOUNT_SID=twilio.account_sid,
        TWILIO_AUTH_TOKEN=twilio.token,
        TAJO_PUBLIC_URL="https://hooks.example.com",
        TAJO_API_KEY="the-key-of-the-demo",
        **{
            f"TAJO_TWILIO_{name.upper()}_URL": f"{url}/twilio/{name}"
            for name in ("flex", "taskrouter", "conversations", "events")
        },
    )
    await asyncio.to_thread(tajo.start, ready=True)
    public_url = tajo.environment["TAJO_PUBLIC_URL"]
    await play(webhooks(), Target(tajo.url, public_url, twilio.token), lambda: None)
    await wait_until_equal(url, CONTACTS, deadline_s=90, on_look=lambda _: None)
    made_up = {"NEW_TOKEN": "the-new-token"}
    path, headers = signed(webhooks()[0], public_url, made_up["NEW_TOKEN"])
    async with httpx.AsyncClient(base_url=tajo.url) as client:
        assert (await client.post(path, content=webhooks()[0].body, headers=headers)).status_code == 403
    await settled(tajo.environment["TAJO_NATS_URL"], len(webhooks()))
    return Deployment(tajo.environment, made_up)


async def settled(nats_url: str, accepted: int) -> None:
    """Return when all that is said of the deployment will not change by itself."""
    deadline = time.monotonic() + 90
    while True:
        found = await status(nats_url)
        counts = {one.service: one.counts for one in found.services}
        if (
            found.connected
            and found.last_sync
            and found.quarantined == 1
            and not any(lag.pending or lag.in_hand for lag in found.lag.values())
            and counts["ingest"]["accepted"] == accepted
            and counts["ingest"]["refused"] == 1
            and counts["poller"]["lastPoll"]
            and (found.conversations_tracked, found.customers_linked, found.agents_monitored) == DAY
            and not counts["brevo-sink"]["inHand"]
        ):
            return
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.5)


def commands(command, path: str) -> Iterator[tuple]:
    """Every command that does something, with how it is called."""
    names = tuple(command.commands) if isinstance(command, TyperGroup) else ()
    for name in names:
        yield from commands(command.get_command(None, name), f"{path} {name}")
    if not names:
        yield path, command


COMMANDS = dict(commands(typer.main.get_command(app), "tajo"))


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_is_shown(path):
    assert any(f"\n$ {path}" in document.read_text() for document in DOCUMENTS)


@pytest.mark.parametrize("path", sorted(COMMANDS.keys() - {"tajo up", "tajo run"}))
def test_every_command_that_prints_a_result_prints_it_as_json_on_request(path):
    assert any("--json" in parameter.opts for parameter in COMMANDS[path].params)


def test_a_shell_can_complete_commands():
    done = subprocess.run(
        [Path(sys.executable).with_name("tajo")],
        env={**os.environ, "_TAJO_COMPLETE": "complete_bash", "COMP_WORDS": "tajo connectors sta", "COMP_CWORD": "2"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert done.stdout.split() == ["status"]


def test_the_document_is_read_as_it_is_meant():
    text = (
        "<!-- cli: exit=69 A=b -->\n```console\n$ tajo one \\\n  --two\nout\n\n$ tajo three\n```\n"
        "```console\n$ tajo\n```\n"
    )

    first, second = blocks(text)

    assert (first.exit, first.environment) == (69, {"A": "b"})
    assert first.commands == [("tajo one \\\n  --two", "out\n\n"), ("tajo three", "")]
    assert (second.exit, second.environment, second.commands) == (0, {}, [("tajo", "")])
    assert text[first.start : first.end].startswith("$ tajo one")


def test_what_varies_is_the_same_and_nothing_else():
    one = "│ mapper │ machine-0123456789ab │ 12 s ago │ 2026-11-25T07:14:18.123Z │"
    other = "│ mapper  │ m-0123456789ac │ 3 s ago │ 2026-11-26T07:14:18Z │"

    assert normalised(one) == normalised(other)
    assert normalised("conversationsTracked  10") != normalised("conversationsTracked  11")
