"""What a service says of settings it cannot use: one sentence with what to do, exit code 78, and no value that is a secret."""

import asyncio
import os

import pytest

USABLE = {"BREVO_API_KEY": "xkeysib-1", "TWILIO_AUTH_TOKEN": "a token", "TAJO_NATS_URL": "nats://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("mapper", {"TAJO_DATA_DIR": "/dev/null/x"}, "set TAJO_DATA_DIR to a folder that may be"),
        ("brevo-sink", {"TAJO_DATA_DIR": "/proc/nope"}, "set TAJO_DATA_DIR to a folder that may be"),
        ("poller", {"TAJO_DATA_DIR": "/proc/nope"}, "set TAJO_DATA_DIR to a folder that may be"),
        ("mapper", {"TAJO_NATS_URL": "nats://[::1"}, "TAJO_NATS_URL names no server: write nats://host:port"),
        ("brevo-sink", {"BREVO_API_KEY": "xkeysib-clé"}, "BREVO_API_KEY has a value of the wrong kind"),
        (
            "poller",
            {"TWILIO_API_KEY_SECRET": "two\nlines"},
            "TWILIO_API_KEY_SECRET has a value of the wrong kind",
        ),
        ("ingest", {"TAJO_API_KEY": "clé"}, "TAJO_API_KEY has a value of the wrong kind"),
        ("ingest", {"TWILIO_AUTH_TOKEN": ","}, "while one is rotated (at least one, in printable ASCII)"),
        ("ingest", {"TAJO_PUBLIC_URL": "http://x/?a=b"}, "(no query: /webhooks comes behind it)"),
        ("ingest", {"TAJO_DATA_DIR": "/dev/null/x"}, "is TAJO_DATA_DIR right, or TAJO_CREDENTIALS?"),
    ],
)
async def test_settings_that_cannot_be_used_are_said_in_one_sentence_and_end_the_process(
    service, name, wrong, said
):
    one = service(name, **{**USABLE, **wrong})

    one.start()
    errors = (await asyncio.to_thread(one.ended)).decode()

    assert one.process.returncode == os.EX_CONFIG
    assert said in errors
    assert len(errors.splitlines()) == 1
    assert "clé" not in errors
