"""X-Twilio-Signature: whether a request is Twilio's.  Pure, and never raises.

https://www.twilio.com/docs/usage/webhooks/webhooks-security
"""

import hashlib
import hmac
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote, unquote_plus

Pairs = Iterable[tuple[str, str]]

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[^/?#]*?)(?P<port>:\d+)?(?P<rest>[/?].*)?", re.IGNORECASE | re.DOTALL
)
_PORT = {"http": ":80", "https": ":443"}


def verify(
    url: str,
    pairs: Pairs,
    signature: str,
    tokens: Sequence[str],
    *,
    sha256: str | None = None,
    body: bytes = b"",
) -> bool:
    """Whether Twilio signed this.

    `url` is what Twilio called, as configured, never from `Host`; `pairs` are the decoded parameters of a form
    post, blank and repeated ones too, and none for JSON.  `sha256` is the query's `bodySHA256`, without which no
    JSON is Twilio's; then `body` is hashed.  Several tokens while one is rotated.  Compares in constant time.
    """
    if sha256 is not None and not hmac.compare_digest(
        hashlib.sha256(body).hexdigest().encode(), sha256.encode()
    ):
        return False
    tail, given = _tail(pairs), signature.encode()
    # Only the right one ends this early: to a wrong one the time taken tells nothing of which came near.
    return any(
        hmac.compare_digest(sign(candidate, tail, token), given)
        for candidate in signed_urls(url)
        for token in tokens
    )


def sign(url: str, tail: str, token: str) -> bytes:
    """The signature over a URL and what `_tail` made of the parameters."""
    return b64encode(hmac.digest(token.encode(), (url + tail).encode(errors="surrogatepass"), "sha1"))


def _tail(pairs: Pairs) -> str:
    """Name and value of each parameter by name, repeated values once and in order."""
    return "".join([name + value for name, value in sorted(set(pairs))])


def signed_urls(url: str) -> Iterator[str]:
    """What Twilio may have signed: with and without the port, and the query as Node's library writes it.

    Twilio signs inconsistently; the official libraries try the same.
    https://github.com/twilio/twilio-python/blob/main/twilio/request_validator.py
    https://github.com/twilio/twilio-node/blob/main/src/webhooks/webhooks.ts
    """
    yield from _either_port(url)
    if (requoted := _requoted(url)) != url:
        yield from _either_port(requoted)


def _either_port(url: str) -> Iterator[str]:
    yield url
    match = _URL.fullmatch(url)
    if match:
        port = "" if match["port"] else _PORT[match["scheme"].lower()]
        yield f"{match['scheme']}://{match['host']}{port}{match['rest'] or ''}"


def _requoted(url: str) -> str:
    """The query decoded and written again with only letters, digits and -_.!~* left plain, as twilio-node tries."""
    path, mark, query = url.partition("?")
    if not mark or not any(sign in query for sign in "'+ "):
        return url
    parts = (part.partition("=") for part in query.split("&"))
    return path + mark + "&".join(f"{_quote(name)}{equals}{_quote(value)}" for name, equals, value in parts)


def _quote(text: str) -> str:
    return quote(
        unquote_plus(text, errors="surrogateescape"), safe="-_.!~*", errors="surrogateescape"
    ).replace("%20", "+")
