"""The demo as a user starts it: real processes, a real broker, the day, and what Brevo holds after it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sandbox.brevo import BrevoSandbox
from sandbox.main import _run
from sandbox.play import NotEqualError

ROOT = Path(__file__).parents[2]
COMMAND = str(Path(sys.executable).with_name("tajo-sandbox"))


def test_the_demo_ends_with_exactly_what_was_expected():
    """Nothing of the shell's own settings may reach it."""
    shell = {**os.environ, "TAJO_DATA_DIR": "/nonexistent", "TWILIO_AUTH_TOKEN_FILE": "/nonexistent"}

    done = subprocess.run(
        [COMMAND, "demo"], cwd=ROOT, env=shell, check=False, capture_output=True, text=True, timeout=110
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "✓ Exactly what was expected" in done.stdout
    assert re.search(r"p50 [\d,]+ ms, p99 [\d,]+ ms", done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "\x1b" not in done.stdout


def test_a_demo_that_is_told_to_stop_leaves_no_process_behind(tmp_path):
    shell = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([COMMAND, "demo"], cwd=ROOT, env=shell, stdout=subprocess.PIPE) as demo:
        assert demo.stdout is not None
        while b"ready" not in (line := demo.stdout.readline()):
            assert line, "the demo ended before it was ready"
        assert len(_living(tmp_path)) >= 6  # tajo, the broker, four services

        demo.send_signal(signal.SIGTERM)

        demo.stdout.read()
        assert demo.wait(60) != 0
    assert _living(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def _living(data: Path) -> list[Path]:
    """The processes that were told to keep their data under this folder."""
    told = f"TAJO_DATA_DIR={data}".encode()
    return [path for path in Path("/proc").glob("[0-9]*/environ") if told in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process is gone
        return b""


def test_a_difference_is_shown_and_ends_with_1(capsys):
    async def find() -> None:
        await asyncio.sleep(0)
        raise NotEqualError(BrevoSandbox().state(), ["meg@example.com: SUPPORT_RESOLVED is missing"])

    with pytest.raises(typer.Exit) as ended:
        _run(find())

    assert ended.value.exit_code == 1
    assert "✗ meg@example.com: SUPPORT_RESOLVED is missing" in capsys.readouterr().out


def test_outside_the_repository_the_demo_says_where_to_run_it(tmp_path):
    done = subprocess.run(
        [COMMAND, "demo"], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 1
    assert "run the demo in the repository" in done.stdout


def test_play_without_a_token_says_what_is_missing():
    bare = {name: value for name, value in os.environ.items() if not name.startswith("TWILIO_")}

    done = subprocess.run(
        [COMMAND, "play"], env=bare, check=False, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == os.EX_CONFIG
    assert "TWILIO_AUTH_TOKEN is not set" in done.stdout
