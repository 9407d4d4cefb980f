"""Signatures: the published vectors, our fixtures, and the official library as a second opinion."""

import json
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as some
from multidict import MultiDict
from twilio.request_validator import RequestValidator

from ingest.signature import verify
from ingest.sources import form

DATA = Path(__file__).parent.parent / "data/twilio"
VECTORS = json.loads((DATA / "signature/vectors.json").read_text())
MANIFEST = json.loads((DATA / "manifest.json").read_text())
SIGNED = [f for f in MANIFEST["fixtures"] if "X-Twilio-Signature" in f.get("headers", {})]
TOKEN = "12345"
URL = "https://hooks.example.com/webhooks/taskrouter"

texts = some.text(some.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)
parameters = some.dictionaries(texts.filter(bool), some.lists(texts, min_size=1, max_size=3), max_size=8)


def pairs_of(params):
    return [
        (name, value)
        for name, values in params.items()
        for value in (values if isinstance(values, list) else [values])
    ]


def sha256_of(url):
    return parse_qs(urlsplit(url).query).get("bodySHA256", [None])[0]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_every_published_vector_is_accepted(vector):
    body, url = (vector["body"] or "").encode(), vector["request_url"]

    assert verify(
        url,
        pairs_of(vector["params"]),
        vector["signature"],
        [vector["auth_token"]],
        sha256=sha256_of(url),
        body=body,
    )
    assert not verify(
        url, pairs_of(vector["params"]), vector["signature"], ["another"], sha256=sha256_of(url), body=body
    )


@pytest.mark.parametrize("fixture", SIGNED, ids=lambda fixture: fixture["file"])
def test_every_fixture_is_accepted_as_it_was_signed_and_refused_when_altered(fixture):
    body, url = (DATA / fixture["file"]).read_bytes(), fixture["url"]
    signature, tokens = fixture["headers"]["X-Twilio-Signature"], [MANIFEST["auth_token_for_signatures"]]
    sha256 = sha256_of(url)

    def accepted(body, url):
        return verify(url, () if sha256 else form(body), signature, tokens, sha256=sha256, body=body)

    assert accepted(body, url)
    assert not accepted(body + b"&x=1", url)
    assert not accepted(body, url + "&x=1")


@given(parameters)
def test_what_the_official_library_signs_is_accepted(params):
    signature = RequestValidator(TOKEN).compute_signature(URL, MultiDict(pairs_of(params)))
    body = urlencode(params, doseq=True).encode()

    assert verify(URL, form(body), signature, ["old", TOKEN])


@given(
    parameters,
    some.sampled_from(["http", "https"]),
    some.sampled_from(["", ":80", ":443", ":8443"]),
    some.booleans(),
)
def test_with_or_without_a_port_we_accept_what_the_official_library_accepts(
    params, scheme, port, signed_with_port
):
    host = f"{scheme}://hooks.example.com"
    signed = f"{host}{port if signed_with_port else ''}/webhooks/taskrouter"
    called = f"{host}{'' if signed_with_port else port}/webhooks/taskrouter"
    signature = RequestValidator(TOKEN).compute_signature(signed, MultiDict(pairs_of(params)))

    if RequestValidator(TOKEN).validate(called, MultiDict(pairs_of(params)), signature):
        assert verify(called, pairs_of(params), signature, [TOKEN])


@given(some.binary(max_size=200), texts, texts)
def test_no_body_and_no_signature_makes_it_raise_or_accept(body, signature, sha256):
    assert not verify(URL, form(body), signature, [TOKEN])
    assert not verify(URL, (), signature, [TOKEN], sha256=sha256, body=body)


@given(some.text("abc%+&=;12EF \u20ac", max_size=60))
def test_a_form_is_read_as_the_standard_library_reads_it(text):
    assert list(form(text.encode())) == parse_qsl(text, keep_blank_values=True)


def test_a_form_of_too_many_parameters_is_an_error():
    with pytest.raises(ValueError, match="fields"):
        form(b"a=1&" * 1001)
