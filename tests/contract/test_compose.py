"""docker-compose.yml as it is written; `make e2e` asks the same of containers that run."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = YAML(typ="safe").load(TEXT)
SERVICES = COMPOSE["services"]
SECRETS = ("TWILIO_AUTH_TOKEN", "TWILIO_API_KEY_SECRET", "BREVO_API_KEY", "TAJO_API_KEY", "TAJO_MASTER_KEY")


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_confined(name):
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert ("cap_add" in service) == (name == "volumes")


@pytest.mark.parametrize("name", [name for name in SERVICES if "build" not in SERVICES[name]])
def test_what_is_not_ours_is_pinned_and_no_root(name):
    assert re.fullmatch(r"[\w/]+:v?\d+\.\d+[\w.-]*", SERVICES[name]["image"])
    assert (SERVICES[name]["user"] == "0:0") == (name == "volumes")


def test_only_ingest_is_published_beyond_loopback():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published.pop("ingest") == ["${TAJO_INGEST_PUBLISH:-8080}:8080"]
    for ports in published.values():
        assert [port for port in ports if ":-127.0.0.1:" not in port] == []


def test_a_secret_is_a_file_and_only_of_who_reads_it():
    for name, service in SERVICES.items():
        environment = service.get("environment", {})
        given = {
            variable.removesuffix("_FILE").lower() for variable in environment if variable.endswith("_FILE")
        }

        assert given == set(service.get("secrets", ())), name
        assert not environment.keys() & set(SECRETS), name
    assert COMPOSE["secrets"].keys() == {secret.lower() for secret in SECRETS}
    assert (ROOT / "deploy/unset").read_bytes() == b""


def test_what_env_example_sets_is_read_and_what_is_read_is_explained():
    example = (ROOT / ".env.example").read_text()
    configuration = (ROOT / "docs/configuration.md").read_text()
    read = set(re.findall(r"\$\{([A-Z_]+)", TEXT))
    written = {re.sub(r"^TAJO_.+_NATS_PASSWORD$", "TAJO_<SERVICE>_NATS_PASSWORD", name) for name in read}

    assert set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE)) - {"COMPOSE_PROFILES"} <= read
    assert {name for name in written if f"`{name}`" not in configuration} == set()
    for file in re.findall(r"^[A-Z_]+_FILE=(.+)$", example, re.MULTILINE):
        assert (ROOT / file).read_text().strip()


def test_jaeger_declares_what_it_uses_and_keeps_spans_on_its_volume():
    jaeger = YAML(typ="safe").load(ROOT / "deploy/jaeger/jaeger.yaml")
    pipeline = jaeger["service"]["pipelines"]["traces"]

    for part, used in (*pipeline.items(), ("extensions", jaeger["service"]["extensions"])):
        assert set(used) == jaeger[part].keys()
    backends = jaeger["extensions"]["jaeger_storage"]["backends"]
    assert set(backends) == {
        jaeger["extensions"]["jaeger_query"]["storage"]["traces"],
        jaeger["exporters"]["jaeger_storage_exporter"]["trace_storage"],
    }
    assert "jaeger:/badger" in SERVICES["jaeger"]["volumes"]
    assert all(path.startswith("/badger/") for path in backends["disk"]["badger"]["directories"].values())
    port = jaeger["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    assert f"http://jaeger:{port}" in SERVICES["ingest"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
