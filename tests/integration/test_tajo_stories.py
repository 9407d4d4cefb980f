"""`tajo mapping preview` and `tajo mapping test`, as a user has them: files, a log, exit codes."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import pytest

from shared import trace
from shared.event import RawEvent, to_message

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests/golden"
MAIL = "ana@acme.example"
MAPPING = """
field_mapping: {attributes.email: email, open_tasks: N}
event_mapping: {task.created: ASKED}
"""


def tajo(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tajo", "mapping", *map(str, arguments)],
        env={**os.environ, "TAJO_NATS_URL": "nats://127.0.0.1:9", "COLUMNS": "200", **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def task(number: int, mail: str):
    attributes = json.dumps({"email": mail})
    fields = {
        "EventType": "task.created",
        "TaskSid": sid(number),
        "TaskChannelUniqueName": "voice",
        "TaskAttributes": attributes,
    }
    return to_message(
        RawEvent(
            id=f"EV{number:032x}", product="taskrouter", type="task.created", source="/webhooks/taskrouter",
            subject=sid(number), account_sid=f"AC{1:032x}", time_ms=1_760_000_000_000 + number,
            content_type="application/x-www-form-urlencoded", body=urlencode(fields).encode(),
        ),
        trace.start(),
    )  # fmt: skip


def sid(number: int) -> str:
    return f"WT{number:032x}"


@pytest.fixture
def mapping(tmp_path):
    file = tmp_path / "tajo.yaml"
    file.write_text(MAPPING)
    return file


@pytest.fixture
def stories(tmp_path):
    for name in ("voice_handled", "voice_abandoned"):
        shutil.copytree(GOLDEN / name, tmp_path / "stories" / name)
    return tmp_path / "stories"


def test_stories_pass_and_one_that_ends_otherwise_fails_with_the_difference(stories):
    assert tajo("test", stories).returncode == 0
    then = stories / "voice_handled/then.json"
    then.write_text(then.read_text().replace('"channel": "voice"', '"channel": "sms"'))

    failed, as_json = tajo("test", stories), tajo("test", stories, "--json")

    assert (failed.returncode, as_json.returncode) == (1, 1)
    assert '    -        "channel": "sms"' in failed.stdout.replace(",", "")
    assert '    +        "channel": "voice"' in failed.stdout.replace(",", "")
    assert "and also: with each event heard twice" in failed.stdout
    assert "1 passed, 1 failed" in failed.stdout
    told = {Path(one["story"]).name: one["passed"] for one in json.loads(as_json.stdout)["stories"]}
    assert told == {"voice_abandoned": True, "voice_handled": False}
    assert tajo("test", stories / "voice_abandoned").returncode == 0

    updated = tajo("test", stories, "--update")

    assert updated.returncode == 0
    assert f"{stories}/voice_handled, written" in updated.stdout
    assert then.read_bytes() == (GOLDEN / "voice_handled/then.json").read_bytes()


def test_what_cannot_be_run_is_said_with_its_line_and_the_others_run(stories, mapping):
    given = stories / "voice_handled/given.ndjson"
    lines = given.read_text().splitlines()
    given.write_text("\n".join([*lines[:2], lines[2][:50]]))
    (stories / "voice_abandoned/mapping.yaml").unlink()  # then it is the connector file's
    (stories / "empty").mkdir()
    (stories / "empty/given.ndjson").touch()
    (stories / "typo").mkdir()
    (stories / "typo/given.ndjson").touch()
    (stories / "typo/then.json").write_text('{"contacts": []}')

    done = tajo("test", stories, TAJO_CONFIG=str(mapping))

    assert done.returncode == 1
    assert "voice_handled: given.ndjson:3: not a whole JSON object" in done.stdout
    assert "empty: no then.json: --update writes it" in done.stdout
    assert "typo: then.json: Expected `object`, got `array` - at `$.contacts`" in done.stdout
    assert "0 passed, 4 failed" in done.stdout
    assert tajo("test", stories / "nothing").returncode == 1
    assert tajo("test", stories, "--new", "x").returncode == 2


async def test_a_story_is_made_of_the_log_and_passes(nats_server, tmp_path, mapping):
    await nats_server.say(task(1, MAIL), task(2, "ben@acme.example"))
    environment = {"TAJO_NATS_URL": nats_server.url, "TAJO_CONFIG": str(mapping)}
    folder = tmp_path / "mine"
    new = ("test", folder, "--new", "ana", "--redact")

    made = await asyncio.to_thread(tajo, *new, "--task", sid(1), **environment)
    again = await asyncio.to_thread(tajo, *new, "--task", sid(1), **environment)
    nothing = await asyncio.to_thread(tajo, "test", folder, "--new", "b", "--task", sid(9), **environment)

    assert made.returncode == 0, made.stderr
    assert MAIL not in (folder / "ana/given.ndjson").read_text()
    then = json.loads((folder / "ana/then.json").read_text())
    assert [event["name"] for event in then["events"]] == ["ASKED"]
    assert tajo("test", folder, TAJO_CONFIG=str(mapping)).returncode == 0
    assert (again.returncode, nothing.returncode) == (1, 1)
    assert not (folder / "b").exists()


async def test_a_preview_of_the_latest_counts_all_of_the_same_customer(nats_server, mapping):
    await nats_server.say(task(1, MAIL), task(2, "ben@acme.example"), task(3, MAIL))

    of_log = await asyncio.to_thread(
        tajo, "preview", mapping, "--last", 1, "--json", TAJO_NATS_URL=nats_server.url
    )
    of_task = await asyncio.to_thread(
        tajo, "preview", mapping, "--task", sid(2), "--json", TAJO_NATS_URL=nats_server.url
    )

    (contact,) = json.loads(of_log.stdout)["contacts"]
    assert (contact["email"], contact["attributes"]) == (
        MAIL, [{"attribute": "N", "value": 2, "source": "open_tasks"}]
    )  # fmt: skip
    assert json.loads(of_task.stdout)["heard"] == 1
    assert not await nats_server.messages("BREVO")


def test_a_preview_of_a_file_of_events_and_of_a_body_as_it_is_posted(tmp_path, mapping):
    body = tmp_path / "body"
    body.write_bytes(task(1, MAIL).body + b"&Timestamp=1760000000")
    story = GOLDEN / "voice_handled/given.ndjson"

    posted = tajo("preview", mapping, "--event", body, "--route", "taskrouter", "--json")
    whole = tajo("preview", mapping, "--event", story)

    assert [one["name"] for one in json.loads(posted.stdout)["events"]] == ["ASKED"]
    assert "ASKED" in whole.stdout
    assert "9 raw events, 1 contacts, 1 events; nothing was sent" in whole.stdout


@pytest.mark.parametrize(
    ("options", "code", "why"),
    [
        ((), 2, "say of which events"),
        (("--event", "{body}", "--last", "3"), 2, "say of which events"),
        (("--event", "{body}"), 1, "--route taskrouter"),
        (("--event", "{body}", "--route", "fax"), 2, "no route is called fax"),
        (("--event", "{body}", "--route", "event-streams"), 1, "dead letter"),
        (("--event", "/nonexistent"), 1, "cannot be read"),
        (("--last", "3"), 69, "no broker of ours"),
    ],
)
def test_what_cannot_be_previewed_is_said(tmp_path, mapping, options, code, why):
    (tmp_path / "body").write_bytes(b"a=b")

    done = tajo("preview", mapping, *(one.format(body=tmp_path / "body") for one in options))

    assert done.returncode == code
    assert why in done.stderr.replace("\n", " ")
