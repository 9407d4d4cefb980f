"""Whether a request is Twilio's, and what of it is kept.  Pure; the same for a webhook and for one from quarantine."""

from urllib.parse import parse_qsl

from msgspec import Struct

from ingest.signature import verify
from ingest.sources import Read, Request, digest, form, read
from shared import dead
from shared.event import to_message
from shared.message import Message


class Heard(Struct, frozen=True):
    """A request as it came."""

    path: str
    method: str
    query: bytes
    body: bytes
    signature: str  # X-Twilio-Signature
    heard_ms: int


class Judge(Struct, frozen=True):
    """What the judgement needs to know of the settings."""

    public_url: str  # without a slash at the end
    tokens: tuple[str, ...]
    account_sid: str
    keep_bodies: bool

    def is_signed(self, heard: Heard) -> bool:
        """Whether Twilio signed it with one of the tokens.  Raises ValueError for more parameters than it sends."""
        given = parse_qsl(heard.query.decode("latin-1"))
        sha256 = next((value for name, value in given if name == "bodySHA256"), None)
        pairs = () if sha256 is not None or heard.method == "GET" else form(heard.body)
        url = self._url(heard.path, heard.query)
        return verify(url, pairs, heard.signature, self.tokens, sha256=sha256, body=content(heard))

    def is_signed_url(self, path: str, query: bytes, signature: str) -> bool:
        """Whether the URL is signed, which names the body's hash: known before the body is read."""
        return verify(self._url(path, query), (), signature, self.tokens)

    def _url(self, path: str, query: bytes) -> str:
        return f"{self.public_url}{path}{'?' if query else ''}{query.decode('latin-1')}"

    def keep(self, heard: Heard, traceparent: str) -> tuple[Read, list[Message]]:
        """What it holds, and that as messages for the log, and for DEAD what cannot be read."""
        request = Request(heard.path, content(heard), heard.heard_ms, self.account_sid, self.keep_bodies)
        holds = read(request)
        letters = (
            dead.to_message(
                who="ingest",
                why=one.why,
                where=request.path,
                msg_id=f"{request.path}/{digest(one.body)}",  # Twilio repeating itself writes it once
                body=one.body,
                headers={"traceparent": traceparent},
            )
            for one in holds.unreadable
        )
        return holds, [*(to_message(event, traceparent) for event in holds.events), *letters]


def content(heard: Heard) -> bytes:
    """The body; of a webhook set to GET the query, for only the URL is signed."""
    return heard.query if heard.method == "GET" else heard.body
