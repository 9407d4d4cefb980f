"""docs/metrics.md is made from the declarations; alerts name only what is declared; promtool agrees where there is one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from faststream.nats import NatsBroker
from prometheus_client import CollectorRegistry
from ruamel.yaml import YAML

from brevo_sink import metrics as brevo_sink
from brevo_sink.budget import Budget
from ingest import metrics as ingest
from mapper import metrics as mapper
from poller import metrics as poller
from poller.endpoints import LIMITS
from poller.rates import Rates
from shared.lease import Lease
from shared.pending import Pending
from shared.topology import BREVO, BREVO_SINK, BREVO_SINK_PAST, DEAD, MAPPER, RECEIPTS, TWILIO
from shared.vitals import Vitals

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/metrics.md"
PROMETHEUS = ROOT / "deploy/prometheus"
RULES = YAML(typ="safe").load(PROMETHEUS / "alerts.yml")["groups"][0]["rules"]

HEAD = """# Metrics

Of Prometheus, at `/metrics` of every service. This page is made from the declarations by `make golden`; a test holds it to them.
Alerts on them stand in `deploy/prometheus/alerts.yml`, each with its page of the [runbook](runbook.md).
No label holds what customers are called.
"""


def declared(tmp_path: Path) -> dict[str, CollectorRegistry]:
    broker, registries = NatsBroker("nats://127.0.0.1:9"), {}
    for name in ("every service", "ingest", "mapper", "brevo-sink", "poller"):
        registries[name] = CollectorRegistry()
    Vitals(registries["every service"], Lease(broker, "mapper", tmp_path))
    ingest.Metrics(registries["ingest"])
    mapper.Metrics(registries["mapper"])
    Pending(broker, registries["mapper"], streams=(TWILIO, DEAD), consumers=(MAPPER,))
    brevo_sink.Metrics(registries["brevo-sink"]).measure(Budget(1.0))
    Pending(
        broker,
        registries["brevo-sink"],
        streams=(BREVO, RECEIPTS),
        consumers=(BREVO_SINK, BREVO_SINK_PAST),
    )
    poller.Metrics(registries["poller"])
    registries["poller"].register(poller.Limits(Rates(LIMITS, 1.0)))
    return registries


def described(registry: CollectorRegistry) -> list[tuple[str, str, str]]:
    """Name with labels, type, help."""
    found = []
    for collector, names in registry._collector_to_names.items():
        for metric in collector.describe() if hasattr(collector, "describe") else collector.collect():
            if not metric.name.startswith("tajo_"):
                continue
            labels = getattr(collector, "_labelnames", None)
            if labels is None:
                labels = metric.samples[0].labels
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            assert metric.name in names or not names
            found.append(
                (f"{name}{{{','.join(labels)}}}" if labels else name, metric.type, metric.documentation)
            )
    return sorted(found)


def page(tmp_path: Path) -> str:
    parts = [HEAD]
    for service, registry in declared(tmp_path).items():
        rows = [f"| `{name}` | {kind} | {text} |" for name, kind, text in described(registry)]
        parts.append(
            "\n".join(
                [f"## {service.capitalize()}\n", "| metric | is a | says |", "|---|---|---|", *rows, ""]
            )
        )
    return "\n".join(parts)


def test_the_page_is_made_from_the_declarations(tmp_path, request):
    made = page(tmp_path)
    if request.config.getoption("--rewrite-stories"):
        PAGE.write_text(made)

    assert PAGE.read_text() == made, "run: make golden"


def test_each_name_follows_prometheus_and_has_one_meaning(tmp_path):
    every = [one for registry in declared(tmp_path).values() for one in set(described(registry))]
    names = [name for name, _, _ in every]

    of_both = ("tajo_consumer_", "tajo_stream_")  # mapper and sink each watch their own
    assert len({name for name in names if not name.startswith(of_both)}) == len(
        [name for name in names if not name.startswith(of_both)]
    )
    for name, kind, text in every:
        assert re.fullmatch(r"tajo(_[a-z0-9]+)+(\{[a-z_,]+\})?", name)
        assert text
        assert not text.endswith(".")
        assert kind != "histogram" or name.partition("{")[0].endswith("_seconds")


def test_nothing_is_declared_elsewhere(tmp_path):
    code = "".join(
        path.read_text() for path in (*ROOT.glob("services/*/src/**/*.py"), *ROOT.glob("shared/src/**/*.py"))
    )
    known = page(tmp_path)

    for name in re.findall(r'"(tajo_[a-z0-9_]+)"', code):
        assert re.search(rf"`{name}(_total)?[`{{]", known), name
        assert code.count(f'"{name}"') == 1, name


def test_alerts_name_only_what_is_declared_and_a_place_in_the_runbook(tmp_path):
    known = {re.split(r"[{`]", name)[0] for name in re.findall(r"`(tajo_[^`]+)`", page(tmp_path))}

    for rule in RULES:
        used = {re.sub(r"_bucket$", "", name) for name in re.findall(r"\btajo_[a-z0-9_]+", rule["expr"])}
        assert used <= known, rule["alert"]
        assert used or "up{" in rule["expr"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        document, _, place = rule["annotations"]["runbook"].partition("#")
        runbook = (ROOT / document).read_text()
        titles = [
            re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
            for title in re.findall(r"^#+ (.+)$", runbook, re.MULTILINE)
        ]
        assert place in titles, rule["alert"]


def test_every_service_is_scraped_at_its_port():
    targets = YAML(typ="safe").load(PROMETHEUS / "prometheus.yml")["scrape_configs"][0]["static_configs"]
    compose = YAML(typ="safe").load(ROOT / "docker-compose.yml")["services"]
    scraped = {one["labels"]["service"]: one["targets"] for one in targets}

    for name, ports in scraped.items():
        port = re.search(r"127\.0\.0\.1:(\d+)/health", " ".join(compose[name]["healthcheck"]["test"]))
        assert port
        assert ports == [f"{name}:{port[1]}"]
    assert set(scraped) == {"ingest", "mapper", "brevo-sink", "poller"}


if shutil.which("promtool"):  # else the header of the run says that it was not asked

    @pytest.mark.parametrize(
        "arguments",
        [
            ("check", "rules", "alerts.yml"),
            ("check", "config", "prometheus.yml"),
            ("test", "rules", "alerts_test.yml"),
        ],
        ids=" ".join,
    )
    def test_promtool_agrees(arguments):
        done = subprocess.run(
            ["promtool", *arguments], cwd=PROMETHEUS, check=False, capture_output=True, text=True
        )

        assert done.returncode == 0, done.stdout + done.stderr
