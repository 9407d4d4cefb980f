"""The sandbox on the network: faults as a client meets them, and what others can ask of it."""

import time

import httpx
import pytest

from sandbox.app import serving
from sandbox.brevo import BrevoSandbox
from sandbox.faults import Fault
from sandbox.limits import UNLIMITED

EVENT = {"event_name": "A", "identifiers": {"ext_id": "tajo-1"}}
BATCH = {"events": [EVENT]}


@pytest.fixture
async def brevo():
    sandbox = BrevoSandbox(limits=UNLIMITED)
    sandbox.account.lists[1] = "any"
    return sandbox


@pytest.fixture
async def client(brevo):
    async with (
        serving(brevo) as url,
        httpx.AsyncClient(base_url=url, headers={"api-key": brevo.api_key}, timeout=5) as client,
    ):
        await client.post("/v3/contacts", json={"ext_id": "tajo-1", "updateEnabled": True})
        yield client


async def test_calls_are_answered_over_http_with_the_headers_of_brevo():
    brevo = BrevoSandbox()
    async with serving(brevo) as url, httpx.AsyncClient(base_url=f"{url}/v3") as client:
        created = await client.post(
            "/contacts", json={"email": "a@b.example"}, headers={"API-Key": brevo.api_key}
        )
        unauthorised = await client.get("/contacts")

    assert (created.status_code, created.json()) == (201, {"id": 247})
    assert created.headers["x-sib-ratelimit-limit"] == "10"
    assert created.headers["sib-request-id"]
    assert unauthorised.status_code == 401


async def test_an_identifier_in_a_path_may_be_encoded(client):
    await client.post("/v3/contacts", json={"email": "a+b@example.com"})

    assert (await client.get("/v3/contacts/a%2Bb%40example.com")).json()["email"] == "a+b@example.com"


@pytest.mark.parametrize("status", [401, 402, 403, 425, 429, 500, 503, 524])
async def test_a_status_is_answered_as_often_as_asked_and_nothing_is_applied(brevo, client, status):
    brevo.faults.append(Fault("status", status=status, times=2, path="/v3/events", method="POST"))

    answers = [(await client.post("/v3/events/batch", json=BATCH)).status_code for _ in range(3)]

    assert answers == [status, status, 202]
    assert len(brevo.events) == 1


async def test_a_fault_elsewhere_does_not_concern_a_call(brevo, client):
    brevo.faults.append(Fault("status", path="/v3/contacts"))
    brevo.faults.append(Fault("status", path="/v3/events", method="GET"))

    assert (await client.post("/v3/events/batch", json=BATCH)).status_code == 202


@pytest.mark.parametrize(("kind", "applied"), [("reset", 0), ("reset_after_apply", 1)])
async def test_a_connection_is_cut_without_a_word(brevo, client, kind, applied):
    brevo.faults.append(Fault(kind, path="/v3/events"))

    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await client.post("/v3/events/batch", json=BATCH)

    assert len(brevo.events) == applied
    assert (await client.post("/v3/events/batch", json=BATCH)).status_code == 202


@pytest.mark.parametrize(("kind", "applied"), [("hang", 0), ("hang_after_apply", 1)])
async def test_an_answer_never_comes(brevo, client, kind, applied):
    brevo.faults.append(Fault(kind, path="/v3/events"))

    with pytest.raises(httpx.ReadTimeout):
        await client.post("/v3/events/batch", json=BATCH, timeout=0.2)

    assert len(brevo.events) == applied


async def test_an_error_may_follow_a_call_that_took_effect(brevo, client):
    brevo.faults.append(Fault("status_after_apply", status=500, path="/v3/events"))

    assert (await client.post("/v3/events/batch", json=BATCH)).status_code == 500
    assert len(brevo.events) == 1


async def test_an_answer_takes_as_long_as_asked(brevo, client):
    brevo.faults.append(Fault("latency", seconds=0.3))
    began = time.monotonic()

    answer = await client.post("/v3/events/batch", json=BATCH)

    assert answer.status_code == 202
    assert time.monotonic() - began >= 0.3


async def test_a_proxy_in_front_answers_text_and_no_headers_of_brevo(brevo, client):
    brevo.faults.append(Fault("status", status=524))

    answer = await client.get("/v3/account")

    assert (answer.text, answer.headers["content-type"]) == ("error code: 524", "text/plain")
    assert "x-sib-ratelimit-limit" not in answer.headers


async def test_faults_are_asked_for_over_http_and_taken_back(brevo, client):
    fault = {"kind": "status", "status": 429, "times": 1, "path": "/v3/events/batch"}

    assert (await client.post("/_sandbox/faults", json=fault)).status_code == 201
    assert (
        await client.post("/_sandbox/faults", json={"kind": "visibility_delay", "seconds": 9})
    ).status_code == 201
    assert (await client.post("/_sandbox/faults", json={"wrong": 1})).status_code == 400
    assert (await client.post("/v3/events/batch", json=BATCH)).status_code == 429
    assert (await client.post("/v3/events/batch", json=BATCH)).status_code == 202
    assert (await client.get("/v3/events")).json()["count"] == 0
    assert (await client.delete("/_sandbox/faults")).status_code == 204

    assert (await client.get("/v3/events")).json()["count"] == 1


async def test_an_unknown_kind_of_fault_is_refused(client):
    assert (await client.post("/_sandbox/faults", json={"kind": "earthquake"})).status_code == 400


async def test_state_tells_contacts_events_and_calls(brevo, client):
    brevo.faults.append(Fault("reset", path="/v3/events"))
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await client.post("/v3/events/batch", json=BATCH)
    await client.post("/v3/events/batch", json={"events": [EVENT, {**EVENT, "identifiers": {"ext_id": "x"}}]})
    await client.get("/v3/contacts/tajo-1?identifierType=ext_id")

    state = (await client.get("/_sandbox/state")).json()

    assert [contact["attributes"]["EXT_ID"] for contact in state["contacts"]] == ["tajo-1"]
    assert [(event["event_name"], event["contact_id"]) for event in state["events"]] == [("A", 247)]
    assert [event["identifiers"] for event in state["orphans"]] == [{"ext_id": "x"}]
    assert state["requests"] == {
        "GET /contacts/{identifier} 200": 1,
        "POST /contacts 201": 1,
        "POST /events/batch 0": 1,
        "POST /events/batch 202": 1,
    }


async def test_what_is_elsewhere_is_not_found(client):
    assert (await client.get("/")).status_code == 404
    assert (await client.get("/v3/smtp/email")).status_code == 404
    assert (await client.get("/_sandbox/nothing")).status_code == 404


async def test_a_body_beyond_all_limits_is_refused(client):
    assert (await client.post("/v3/events", content=b"x" * (10 * 1024**2 + 1))).status_code == 413
