"""The documents against the code: every setting, stream and metric is named, and every test they name exists."""

import re
from pathlib import Path
from typing import get_type_hints

import pytest

import brevo_sink.settings
import ingest.settings
import mapper.settings
import poller.settings
import sandbox.settings
from shared.bootstrap import Replicas
from shared.credentials import NAMES, Place
from shared.login import Tls
from shared.otel import Otel
from shared.settings import variable_of
from shared.topology import BUCKETS, CONSUMERS, OBJECT_STORES, STREAMS
from tajo.check import Broker

ROOT = Path(__file__).parent.parent.parent
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
SETTINGS = (
    brevo_sink.settings.Settings,
    ingest.settings.Settings,
    mapper.settings.Settings,
    poller.settings.Settings,
    sandbox.settings.Play,
    sandbox.settings.Serve,
    Place,
    Broker,
    Replicas,
    Tls,
    Otel,
)


def test_every_setting_is_explained():
    variables = {
        variable_of(hint)
        for settings in SETTINGS
        for hint in get_type_hints(settings, include_extras=True).values()
    }

    assert {name for name in (*variables, *NAMES) if f"`{name}`" not in CONFIGURATION} == set()


def test_no_setting_is_explained_that_nobody_reads():
    explained = set(re.findall(r"`((?:TAJO|TWILIO|BREVO)_[A-Z_]+)`", CONFIGURATION))
    code = "".join(
        path.read_text()
        for path in [
            *ROOT.glob("*/src/**/*.py"),
            *ROOT.glob("services/*/src/**/*.py"),
            ROOT / "docker-compose.yml",
        ]
    )

    assert {name for name in explained if name not in code} == set()


def test_every_stream_consumer_and_bucket_is_described():
    named = [
        *(one.name for one in (*STREAMS, *BUCKETS, *OBJECT_STORES)),
        *(consumer.durable for consumer in CONSUMERS),
    ]
    for name in named:
        assert f"`{name}`" in ARCHITECTURE


@pytest.mark.parametrize("document", sorted(ROOT.glob("docs/**/*.md")), ids=lambda path: path.name)
def test_every_test_and_file_a_document_names_exists(document):
    text = document.read_text()
    tests = "".join(path.read_text() for path in ROOT.glob("tests/**/*.py"))

    assert [name for name in re.findall(r"`(test_\w+)`", text) if f"def {name}(" not in tests] == []
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [link for link in links if not (document.parent / link).exists()] == []
