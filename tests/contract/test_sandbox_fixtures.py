"""The local Brevo answers as the fixtures say the real one does: status, code, message and the shape of the body."""

import json
from pathlib import Path

import pytest

from sandbox.brevo import BrevoSandbox
from sandbox.faults import BREVO_WORDS, Fault
from sandbox.http import Asked
from sandbox.limits import Limits

FIXTURES = Path(__file__).parents[1] / "data/brevo"
KEY = "xkeysib-TEST"

MEG = {"email": "meg@example.com", "ext_id": "flex-cust-000123"}
MEG_AND_PHONE = {**MEG, "attributes": {"SMS": "+12025550147"}}
BOB_WITH_MEGS_PHONE = {"email": "bob@example.com", "attributes": {"SMS": "+12025550147"}}

# Fixture → the contacts there are before; the first has the id 247.
CALLS = {
    "account/get.200": [],
    "attributes/create.boolean.201": [],
    "attributes/create.category.201": [],
    "attributes/create.date.201": [],
    "attributes/create.duplicate.400": [],
    "attributes/create.float.201": [],
    "attributes/create.multiple_choice.201": [],
    "attributes/create.text.201": [],
    "contacts/create.201": [],
    "contacts/create.duplicate_email.400": [MEG],
    "contacts/create.ext_id_and_phone_only.201": [],
    "contacts/create.invalid_phone.400": [],
    "contacts/delete.204": [MEG],
    "contacts/delete.not_found.404": [],
    "contacts/delete.registered_email.405": [{"email": "owner@example.com"}],
    "contacts/get.200": [MEG_AND_PHONE],
    "contacts/get.not_found.404": [],
    "contacts/list.modified_since.200": [MEG],
    "contacts/update.duplicate_sms.400": [MEG, BOB_WITH_MEGS_PHONE],
    "contacts/update.ext_id.204": [MEG],
    "contacts/update.force_merge.204": [MEG, BOB_WITH_MEGS_PHONE],
    "contacts/update.not_found.404": [],
    "contacts/upsert.duplicate_sms.400": [MEG, BOB_WITH_MEGS_PHONE],
    "contacts/upsert.duplicate_sms.invalid_parameter.400": [MEG, BOB_WITH_MEGS_PHONE],
    "contacts/upsert.force_merge.get_id": [MEG, BOB_WITH_MEGS_PHONE],
    "contacts/upsert_existing.204": [MEG],
    "errors/401.key_not_found": [],
    "errors/401.no_key": [],
    "errors/405.method_not_allowed": [],
    "events/batch.accepted.202": [MEG],
    "events/batch.all_invalid.400": [],
    "events/batch.partial.207": [MEG],
    "events/create.bad_event_name.400": [],
    "events/create.ext_id.204": [MEG],
    "events/create.no_identifier.400": [],
    "events/create.phone_id.204": [MEG_AND_PHONE],
    "events/create.scalar_types.204": [MEG],
    "events/create.with_object.204": [MEG],
    "import/json.202": [],
    "import/no_list.400": [],
    "processes/not_found.404": [],
    "lists/create.201": [],
    "lists/create.bad_folder.404": [],
    "lists/folder.create.201": [],
}

FLEX_ATTRIBUTES = {"CHANNEL": "text", "CASES_TOTAL": "float", "VIP": "boolean", "LAST_CONTACT_AT": "date"}


def fixture(name: str) -> dict:
    return json.loads((FIXTURES / f"{name}.json").read_bytes())


def ask(brevo: BrevoSandbox, request: dict):
    query = {name: value if isinstance(value, list) else [value] for name, value in request["query"].items()}
    body = b"" if request["body"] is None else json.dumps(request["body"]).encode()
    path = request["path"].removeprefix("/v3").replace("%40", "@")
    return brevo.answer(Asked(request["method"], path, query, body), request["headers"])


def account(contacts: list[dict], *, key: str = KEY) -> BrevoSandbox:
    brevo = BrevoSandbox(api_key=key)
    brevo.account.lists |= {43: "Flex", 58: "Former"}
    brevo.account.folders[9] = "Flex"
    for body in contacts:
        call = {
            "method": "POST",
            "path": "/v3/contacts",
            "query": {},
            "headers": {"api-key": key},
            "body": body,
        }
        assert ask(brevo, call).status == 201
    return brevo


def shape(value, depth: int = 2):
    """The keys of an object, and of those in it."""
    if isinstance(value, dict) and depth:
        return {key: shape(inner, depth - 1) for key, inner in value.items()}
    return type(value).__name__ if value is None or isinstance(value, dict | list) else "scalar"


@pytest.mark.parametrize("name", CALLS)
def test_local_brevo_answers_as_recorded(name):
    recorded = fixture(name)
    brevo = account(CALLS[name], key="another" if name == "errors/401.key_not_found" else KEY)
    if "invalid_parameter" in name:
        brevo.contacts.conflict_code = "invalid_parameter"
    if name == "errors/401.no_key":
        del recorded["request"]["headers"]["api-key"]

    answer = ask(brevo, recorded["request"])

    wanted = recorded["response"]
    assert answer.status == wanted["status"]
    if wanted["status"] >= 400 and recorded["confirmation"] == "message-confirmed":
        assert answer.body == wanted["body"]
    elif name not in ("account/get.200", "contacts/get.200"):
        assert shape(answer.body, 1) == shape(wanted["body"], 1)
    assert {key for key in answer.headers if key.startswith("x-sib")} == {
        key for key in wanted["headers"] if key.startswith("x-sib")
    }


def test_contact_reads_back_with_the_documented_fields():
    recorded = fixture("contacts/get.200")

    answer = ask(account([MEG_AND_PHONE]), recorded["request"])

    assert answer.body.keys() == recorded["response"]["body"].keys()
    assert answer.body["attributes"] == {"SMS": "12025550147", "EXT_ID": "flex-cust-000123"}


def test_event_reads_back_with_the_documented_fields():
    recorded = fixture("events/list.200")
    brevo = account([MEG])
    ask(brevo, fixture("events/create.ext_id.204")["request"])

    answer = ask(brevo, recorded["request"])

    wanted = recorded["response"]["body"]["events"][0]
    assert answer.body["count"] == 1
    assert answer.body["events"][0].keys() == wanted.keys()
    for key in ("contact_id", "event_name", "event_date", "event_properties"):
        assert answer.body["events"][0][key] == wanted[key]


@pytest.mark.parametrize("name", ["errors/429", "errors/500", "errors/402.not_enough_credits",
                                  "errors/403.permission_denied", "errors/401.unrecognised_ip",
                                  "contacts/create.too_early.425"])  # fmt: skip
def test_fault_on_request_answers_as_recorded(name):
    wanted = fixture(name)["response"]

    answer = Fault("status", status=wanted["status"]).answer(BREVO_WORDS)

    assert answer.body == wanted["body"]


@pytest.mark.parametrize(
    ("name", "takes_s", "fails"),
    [
        ("processes/queued.200", 60.0, 0),
        ("processes/import_completed.200", 0.0, 0),
        ("processes/import_failed.200", 0.0, 1),
    ],
)
def test_an_import_is_followed_as_recorded(name, takes_s, fails):
    recorded = fixture(name)
    brevo = account([])
    brevo.imports.takes_s, brevo.imports.fails = takes_s, fails
    brevo.imports.refused_emails = {
        "meg@example.com": "invalid_emails",
        "bob@example.com": "duplicate_phone_id",
    }
    process = ask(brevo, fixture("import/json.202")["request"]).body["processId"]
    request = {**recorded["request"], "path": f"/v3/processes/{process}"}

    answer = ask(brevo, request)

    wanted = recorded["response"]["body"]
    status = (
        "in_process" if wanted["status"] == "queued" else wanted["status"]
    )  # it begins when it is asked for
    assert (answer.status, answer.body["status"], answer.body["name"]) == (200, status, wanted["name"])
    files, given = (one.get("info", {}).get("import", {}) for one in (wanted, answer.body))
    assert {file: url is None for file, url in files.items()} == {
        file: url is None for file, url in given.items()
    }


def test_hourly_bucket_refuses_as_recorded():
    recorded = fixture("errors/429.hourly_bucket")
    brevo = BrevoSandbox(api_key=KEY, limits=Limits(other_per_h=1))
    call = fixture("account/get.200")["request"]
    assert ask(brevo, call).status == 200

    answer = ask(brevo, call)

    assert (answer.status, answer.body) == (429, recorded["response"]["body"])
    assert int(answer.headers["x-sib-ratelimit-reset"]) > 3000
    assert answer.headers["x-sib-ratelimit-remaining"] == "0"
