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
        query = heard.query.decode("latin-1")
        url = f"{self.public_url}{heard.path}{'?' if query else ''}{query}"
        given = parse_qsl(query) if query else ()
        sha256 = next((value for name, value in given if name == "bodySHA256"), None)
        pairs = () if sha256 is not None or heard.method == "GET" else form(heard.body)
        return verify(url, pairs, heard.signature, self.tokens, sha256=sha256, body=content(heard))

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
    """The body; of a webhook set to GET the query, which is signed as part of the URL."""
    return heard.body or heard.query if heard.method == "GET" else heard.body
