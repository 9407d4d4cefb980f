"""`make bench` measures what it says, and writes it: nothing is asserted of how fast."""

import asyncio
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
NUMBERS = {
    "ingest": {"ingest.per_s", "ingest.p99_ms", "ingest.ratio", "ingest.paced_p50_ms", "ingest.two_per_s", "ingest.peak_mb"},
    "mapper": {"mapper.per_s", "mapper.ratio", "mapper.reader_ratio", "mapper.cpu_ratio", "mapper.cpu_us", "mapper.peak_mb"},
    "rebuild": {"rebuild.per_s", "rebuild.per_core_s", "rebuild.peak_mb", "rebuild.ratio"},
    "sink": {"sink.events_per_s", "sink.contacts_ratio", "sink.budget_used", "sink.peak_mb"},
    "poller": {"poller.per_s", "poller.peak_mb"},
    "whole": {"up.ready_s", "whole.p50_ms", "brevo.calls_per_1000", "idle.mapper_mb", "idle.mapper_cpu"},
    "tracing": {"tracing.ingest_off_us", "tracing.mapper_100%_us"},
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
async def test_each_measurement_finds_its_numbers_and_the_page_shows_them(name, tmp_path):
    command = ["-m", "tests.bench", "--quick", "--json", "--only", name, "--write", str(tmp_path)]
    bench = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await bench.communicate()

    assert bench.returncode == 0, errors.decode()
    found = msgspec.json.decode(out)[name]
    assert NUMBERS[name] <= found["numbers"].keys()
    assert all(number >= 0 for number in found["numbers"].values())
    page = (tmp_path / "performance.md").read_text()
    assert all(f"| {figure['what']} | {figure['found']} |" in page for figure in found["figures"])
    pictures = {path.stem for path in tmp_path.glob("performance/*.svg") if ET.parse(path)}
    assert pictures == {curve["name"] for curve in found["curves"]}
    assert all(f"performance/{name}.svg" in page for name in pictures)
    [run] = msgspec.json.decode((tmp_path / "performance.json").read_bytes())["runs"][name]
    assert run["numbers"] == found["numbers"]
