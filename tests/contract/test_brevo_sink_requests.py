"""What we send Brevo fits its published schema and its documented limits."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some
from openapi_schema_validator import OAS31Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from ruamel.yaml import YAML

from brevo_sink import request
from shared.command import ContactUpsert, EventTrack

SPEC = YAML(typ="safe").load(Path(__file__).parent.parent / "data/brevo/openapi-subset.yaml")
names = some.text("ABCXYZ_", min_size=1, max_size=12)
texts = some.text(max_size=30)


def validator(path: str) -> OAS31Validator:
    schema = SPEC["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    whole = {**schema, "components": SPEC["components"]}
    resource = Resource(whole, DRAFT202012)
    return OAS31Validator(whole, registry=Registry().with_resource("", resource))


CONTACT, BATCH = validator("/contacts"), validator("/events/batch")

upserts = some.builds(
    ContactUpsert,
    id=texts, ext_id=names, version=some.integers(0), mapping=names, email=some.none() | some.just("a@b.example"),
    attributes=some.dictionaries(names | some.just("SMS"), texts | some.integers() | some.floats(allow_nan=False) | some.booleans()),
    list_ids=some.lists(some.integers(1), max_size=2).map(tuple),
)  # fmt: skip
tracks = some.builds(
    EventTrack,
    id=texts, ext_id=names, name=names, time=some.just("2026-11-20T10:00:00.000Z"),
    properties=some.dictionaries(names, texts | some.integers(-(2**53), 2**53), max_size=5),
)  # fmt: skip


@given(upserts, some.sets(some.sampled_from(["email", "SMS"])))
def test_a_contact_fits_the_schema_and_leaves_out_what_it_must(command, without):
    body = request.contact(command, command.ext_id, without)

    CONTACT.validate(body)
    assert body["updateEnabled"] is True
    assert "forceMerge" not in body
    assert not without & {*body, *body["attributes"]}


@given(some.lists(tracks, min_size=1, max_size=8))
def test_a_batch_of_events_fits_the_schema_and_carries_the_key(commands):
    body = {"events": [request.event(command, command.ext_id) for command in commands]}

    BATCH.validate(body)
    for event, command in zip(body["events"], commands, strict=True):
        assert event["event_properties"]["idempotency_key"] == command.id
        assert event["identifiers"] == {"ext_id": command.ext_id}
        assert "contact_properties" not in event


@pytest.mark.parametrize(
    "bad",
    [
        {"events": [{"event_name": "X"}]},
        {"events": [{"event_name": "X", "identifiers": {}, "event_properties": {"a": 1.5}}]},
    ],
)
def test_the_schema_would_catch_what_is_wrong(bad):
    assert not BATCH.is_valid(bad)


def test_events_go_in_as_few_calls_as_the_limits_allow_and_in_order():
    small = [EventTrack(id=str(n), ext_id="c", name="X", time="") for n in range(450)]
    large = [
        EventTrack(id=str(n), ext_id="c", name="X", time="", properties={"t": "x" * 40_000})
        for n in range(30)
    ]

    assert [len(batch) for batch in request.batches(small)] == [200, 200, 50]
    sizes = [
        len(msgspec.json.encode({"events": [request.event(one, one.ext_id) for one in batch]}))
        for batch in request.batches(large)
    ]
    assert max(sizes) <= 512 * 1024
    assert [one.id for batch in request.batches(small) for one in batch] == [str(n) for n in range(450)]


@given(some.dictionaries(names, some.text(max_size=40_000), min_size=1, max_size=4))
def test_properties_are_cut_to_fit_and_the_key_never(properties):
    event = request.event(EventTrack(id="key", ext_id="c", name="X", time="", properties=properties), "c")

    assert len(msgspec.json.encode(event["event_properties"])) <= 50 * 1024
    assert event["event_properties"]["idempotency_key"] == "key"
    assert set(event["event_properties"]) == {*properties, "idempotency_key"}
