"""What we ask Twilio, and what we read of its answers, stands in its OpenAPI.

TAJO_SPECS_DIR holds `twilio/twilio_{taskrouter_v1,conversations_v1,flex_v1,flex_v2,events_v1}.json` of
https://github.com/twilio/twilio-oai; run without it, these tests are left out.
"""

import json
import os
import re
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl

import pytest
import uvicorn
from openapi_schema_validator import OAS30Validator

from poller.endpoints import ENDPOINTS
from poller.twilio import Credentials, Twilio
from sandbox.app import listening

SPECS = Path(os.environ["TAJO_SPECS_DIR"]) / "twilio"
FILES = {
    "taskrouter": ("taskrouter_v1",), "conversations": ("conversations_v1",), "flex": ("flex_v1", "flex_v2"), "events": ("events_v1",),
}  # fmt: skip
LOADED = {
    name: json.loads((SPECS / f"twilio_{name}.json").read_text())
    for names in FILES.values()
    for name in names
}


def operation(endpoint):
    """The operation of the OpenAPI whose path is ours, whatever its sids are called there; and its document."""
    ours = re.sub(r"\{\w+\}", "{}", endpoint.path)
    for name in FILES[endpoint.product]:
        for path, methods in LOADED[name]["paths"].items():
            if re.sub(r"\{\w+\}", "{}", path) == ours and endpoint.method.lower() in methods:
                return methods[endpoint.method.lower()], LOADED[name]
    pytest.fail(f"{endpoint.method} {endpoint.path} is not in Twilio's OpenAPI")


def resolved(schema, document):
    """A schema, or the one it refers to."""
    return (
        document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    )


def example(schema) -> str:
    """A value the schema takes."""
    if pattern := schema.get("pattern"):
        return re.match(r"\^(\w\w)", pattern)[1] + "0" * 32
    if schema.get("enum"):
        return str(schema["enum"][0])
    return {"date-time": "2026-11-20T00:00:00Z"}.get(schema.get("format"), "1")


def shape(operation, document):
    """What an operation takes: its sids with an example each, the schemas of its query and form, what is required."""
    parameters = operation.get("parameters", [])
    form = operation.get("requestBody", {}).get("content", {}).get("application/x-www-form-urlencoded", {})
    properties = form.get("schema", {}).get("properties", {})
    sids = {one["name"]: example(one["schema"]) for one in parameters if one["in"] == "path"}
    query = {one["name"]: resolved(one["schema"], document) for one in parameters if one["in"] == "query"}
    properties = {name: resolved(schema, document) for name, schema in properties.items()}
    return sids, query, properties, form.get("schema", {}).get("required", [])


async def asked(endpoint) -> dict:
    """What goes over the wire with everything the endpoint takes."""
    seen = {}

    async def app(scope, receive, send):
        body = (await receive()).get("body", b"")
        seen.update(
            method=scope["method"],
            path=scope["path"],
            query=scope["query_string"].decode(),
            body=body.decode(),
        )
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    sids, query, properties, _ = shape(*operation(endpoint))
    named = dict(zip(re.findall(r"\{(\w+)\}", endpoint.path), sids.values(), strict=True))
    values = {name: example(query.get(name) or properties[name]) for name in endpoint.takes}
    async with listening(uvicorn.Config(app, lifespan="off", log_level="critical")) as url:
        client = Twilio(Credentials("AC", "AC", "x"), urls=dict.fromkeys(FILES, url))
        if endpoint.method == "POST":
            await client.create(endpoint, list(values.items()), **named)
        elif endpoint.key:
            _ = [page async for page in client.pages(endpoint, **named, **values)]
        else:
            await client.fetch(endpoint, **named, **values)
        await client.close()
    return seen


@pytest.mark.parametrize("name", ENDPOINTS)
async def test_what_goes_over_the_wire_fits(name):
    endpoint = ENDPOINTS[name]
    described, document = operation(endpoint)
    sids, query, properties, required = shape(described, document)

    seen = await asked(endpoint)

    assert seen["method"] == endpoint.method
    assert all(sid in seen["path"] for sid in sids.values())
    sent = {key: values[0] for key, values in parse_qs(seen["query"]).items()}
    assert sent.keys() <= query.keys()
    for key, value in sent.items():
        schema = query[key]
        given = int(value) if schema.get("type") == "integer" else value
        if schema.get("type") not in ("array", "boolean"):
            OAS30Validator(schema).validate(given)
    form = dict(parse_qsl(seen["body"]))
    assert form.keys() <= properties.keys()
    assert set(required) <= form.keys()
    if endpoint.key:
        assert sent["PageSize"] == str(endpoint.page_size)
        assert endpoint.page_size <= query["PageSize"].get("maximum", 1000)


@pytest.mark.parametrize("name", [name for name, endpoint in ENDPOINTS.items() if endpoint.key])
def test_a_list_stands_where_we_look_for_it(name):
    described, _ = operation(ENDPOINTS[name])
    schema = described["responses"]["200"]["content"]["application/json"]["schema"]

    assert schema["properties"][ENDPOINTS[name].key]["type"] == "array"
    assert "next_page_url" in schema["properties"]["meta"]["properties"]


def test_every_endpoint_says_what_to_know():
    for name, endpoint in ENDPOINTS.items():
        assert endpoint.doc.strip(), name
