"""`tajo replay` on a whole deployment: a plan tells Brevo nothing, applying it tells exactly that, and what somebody did at
Brevo by hand is found and mended."""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.day import webhooks
from sandbox.expected import CONTACTS
from sandbox.faults import Fault
from sandbox.play import Target, play, wait_until_equal
from sandbox.rest import TwilioSandbox

ROOT = Path(__file__).parent.parent.parent


async def replay(environment, *words: str) -> tuple[int, str, str]:
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "tajo", "replay", *words], env={**os.environ, **environment},
        capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.long
async def test_a_plan_tells_brevo_nothing_applied_exactly_that_and_read_back_what_a_hand_changed_is_mended(
    everything, tmp_path
):
    file, other, plan = tmp_path / "tajo.yaml", tmp_path / "other.yaml", str(tmp_path / "plan")
    file.write_bytes((ROOT / "config/tajo.yaml").read_bytes())
    other.write_text(file.read_text().replace("VIP_TIER", "TIER"))
    async with serving(brevo := BrevoSandbox(), twilio := TwilioSandbox()) as url:
        tajo = everything(
            TAJO_BREVO_URL=f"{url}/v3", BREVO_API_KEY=brevo.api_key, TWILIO_ACCOUNT_SID=twilio.account_sid,
            TWILIO_AUTH_TOKEN=twilio.token, TAJO_PUBLIC_URL="https://hooks.example.com",
            TAJO_API_KEY="the-key-of-the-demo", TAJO_CONFIG=str(file),
        )  # fmt: skip
        await asyncio.to_thread(tajo.start, ready=True)
        await play(
            webhooks(), Target(tajo.url, tajo.environment["TAJO_PUBLIC_URL"], twilio.token), lambda: None
        )
        await wait_until_equal(url, CONTACTS, deadline_s=90, on_look=lambda _: None)
        brevo.faults.append(Fault("status", status=403, times=None))
        calls = len(brevo.requests)

        code, out, err = await replay(tajo.environment, "--plan", "--json", "--mapping", str(other), "--out", plan)  # fmt: skip

        assert code == 0, err
        assert len(brevo.requests) == calls
        told = json.loads(out)["plan"]
        changed = {one["ext_id"]: one["attributes"] for one in told["contacts"]}
        assert changed
        assert all(names.keys() == {"TIER"} for names in changed.values())
        brevo.faults.clear()
        refused = await replay(tajo.environment, "--apply", plan)
        assert refused[0] == 1
        assert "TAJO_CONFIG" in refused[2]
        file.write_bytes(other.read_bytes())
        code, out, err = await replay(tajo.environment, "--apply", plan, "--json")

        assert code == 0, err
        assert msgspec.json.decode(out)["commands"] == len(changed)
        for ext_id, names in changed.items():
            assert brevo.contact(ext_id=ext_id).attributes["TIER"] == names["TIER"][1]

        changed, off_list, deleted = list(brevo.contacts.by_id.values())[:3]
        shown = [one.shown() for one in brevo.contacts.by_id.values()]
        events = len(brevo.events)
        of_deleted = sum(one.contact_id == deleted.id for one in brevo.events)
        changed.attributes["FIRSTNAME"], lists = "by hand", set(off_list.list_ids)
        off_list.list_ids.clear()
        brevo.contacts._remove(deleted)
        code, out, err = await replay(tajo.environment, "--plan", "--read-back", "--json", "--out", plan)

        assert code == 0, err
        found = json.loads(out)
        kinds = Counter((one["ext_id"], one["kind"]) for one in found["readBack"]["differences"])
        assert kinds == Counter({
            (changed.ext_id, "attribute"): 1, (off_list.ext_id, "list_missing"): len(lists),
            (deleted.ext_id, "contact_missing"): 1, (deleted.ext_id, "event_elsewhere"): of_deleted,
        })  # fmt: skip
        told = {(one["ext_id"], one["action"]) for one in found["plan"]["contacts"]}
        assert told == {(one.ext_id, "again") for one in (changed, off_list, deleted)}
        code, out, err = await replay(tajo.environment, "--apply", plan, "--json")

        assert code == 0, err
        told_again = [one.shown() for one in brevo.contacts.by_id.values()]
        assert sorted(map(content, told_again), key=str) == sorted(map(content, shown), key=str)
        assert len(brevo.events) == events


def content(shown: dict) -> dict:
    """A contact without what a new one has another of, or, of the mapping before, has not."""
    attributes = {name: value for name, value in shown["attributes"].items() if name != "VIP_TIER"}
    return {"email": shown.get("email"), "attributes": attributes, "listIds": shown["listIds"]}
