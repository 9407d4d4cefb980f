"""The exit codes of `tajo`, the same for every command, and written down."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tajo.main import CODES

ROOT = Path(__file__).parent.parent.parent


def tajo(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tajo", *arguments],
        env={**os.environ, "COLUMNS": "120", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def test_the_help_and_the_document_name_the_same_codes():
    table = re.findall(r"^\| (\d+) \| ", (ROOT / "docs/cli.md").read_text(), re.MULTILINE)

    assert table == re.findall(r"\d+", CODES)


def test_one_that_is_interrupted_ends_with_130_and_no_traceback():
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes the connection, and says nothing
        url = f"nats://127.0.0.1:{listener.getsockname()[1]}"
        with tajo("bootstrap", TAJO_NATS_URL=url) as one:
            connection, _ = listener.accept()
            one.send_signal(signal.SIGINT)
            _, said = one.communicate(timeout=60)
            connection.close()

    assert one.returncode == 130
    assert "Traceback" not in said


def test_what_takes_the_connection_and_says_nothing_is_given_up_within_20_seconds():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began = time.monotonic()
        with tajo("log", "ls", TAJO_NATS_URL=f"nats://127.0.0.1:{listener.getsockname()[1]}") as one:
            _, said = one.communicate(timeout=60)
        took_s = time.monotonic() - began

    assert (one.returncode, said.partition(":")[0]) == (69, "no broker of ours at 127.0.0.1")
    assert took_s < 20


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("customer", "show", "x", "--config", "/nonexistent.yaml"), 78),
        (("quarantine", "recheck"), 78),
        (("log", "ls", "--nats-url", "nats://[::1"), 78),
        (("bootstrap", "--nats-url", "nats://h:port"), 78),
        (("customer", "show", "x", "--data-dir", "/nonexistent"), 1),
        (("quarantine", "ls"), 69),
        (("bootstrap",), 69),
        (("connectors", "status", "twilio-flex"), 69),
    ],
)
def test_an_error_has_its_code_and_in_json_one_shape_with_nothing_on_standard_output(arguments, code):
    settings = {"TAJO_NATS_URL": "nats://127.0.0.1:9", "TWILIO_AUTH_TOKEN": ""}
    with tajo(*arguments, **settings) as in_words, tajo(*arguments, "--json", **settings) as as_json:
        words, value = in_words.communicate(timeout=60), as_json.communicate(timeout=60)

    assert (in_words.returncode, as_json.returncode) == (code, code)
    assert words[0] == value[0] == ""
    error = json.loads(value[1])["error"]
    assert error.keys() == {"code", "what", "remedy"}
    assert error["code"] == code
    assert words[1].startswith(error["what"])
    assert "Traceback" not in words[1]


@pytest.fixture
def ports(free_port):
    return {f"TAJO_{name}_PORT": str(free_port()) for name in ("INGEST", "MAPPER", "BREVO_SINK", "POLLER")}


def test_whoever_starts_it_all_twice_is_told_which_port_is_in_use_before_anything_begins(tmp_path, ports):
    port = ports["TAJO_MAPPER_PORT"]
    with (
        socket.create_server(("127.0.0.1", int(port))),
        tajo("up", TAJO_NATS_URL="nats://127.0.0.1:9", TAJO_DATA_DIR=str(tmp_path / "data"), **ports) as one,
    ):
        _, said = one.communicate(timeout=60)

    assert one.returncode == 78
    assert (
        f"port {port} of mapper is in use: stop what listens there (another Tajo?), or set TAJO_MAPPER_PORT"
        in (" ".join(said.split()))
    )
    assert not list(tmp_path.iterdir())


def test_whoever_starts_it_all_with_nothing_set_is_told_of_all_that_is_missing(tmp_path, free_port, ports):
    nothing = {"BREVO_API_KEY": "", "TWILIO_AUTH_TOKEN": ""}
    url = f"nats://127.0.0.1:{free_port()}"
    with tajo("up", TAJO_NATS_URL=url, TAJO_DATA_DIR=str(tmp_path), **ports, **nothing) as one:
        _, said = one.communicate(timeout=60)

    assert one.returncode == 78
    assert all(f"{name} is not set" in said for name in nothing), said


def test_whoever_starts_it_all_where_no_folder_can_be_made_is_told_which(tmp_path, free_port, ports):
    (tmp_path / "file").touch()
    url = f"nats://127.0.0.1:{free_port()}"
    with tajo("up", TAJO_NATS_URL=url, TAJO_DATA_DIR=str(tmp_path / "file"), **ports) as one:
        _, said = one.communicate(timeout=60)

    assert one.returncode == 78
    assert "file/nats cannot be made (Not a directory): set TAJO_DATA_DIR to a folder that may be" in (
        " ".join(said.split())
    )


def test_whoever_starts_it_all_with_a_broker_that_is_not_there_is_told_where_it_was_looked_for(
    tmp_path, ports
):
    secret = "nats://somebody:hunter2@127.0.0.9:9"
    with tajo("up", TAJO_NATS_URL=secret, TAJO_DATA_DIR=str(tmp_path), BREVO_API_KEY="x", **ports) as one:
        _, said = one.communicate(timeout=60)

    assert one.returncode == 69
    assert "the streams cannot be made on 127.0.0.9:9 (no servers available for connection)" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("arguments", [("run", "console"), ("connectors", "status", "zendesk"), ("unknown",)])
def test_wrong_usage_is_2(arguments):
    with tajo(*arguments) as one:
        _, said = one.communicate(timeout=60)

    assert one.returncode == 2
    assert "Usage: " in said
