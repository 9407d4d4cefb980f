"""Tombstones: what is left of somebody who was forgotten, so that nothing of before brings them back.  Pure.

A tombstone names nobody.  It holds keyed hashes of what the person was called (identifiers, sids of their interactions,
ids of their raw events, their ext_ids) and until when that counts: what happened later is a new customer's.  Without the
key (shared/erasure.py says where it stands) a hash cannot be tried out on mails or phones.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from urllib.parse import unquote_plus

from msgspec import Struct

DIGEST_BYTES = 16  # two names in 2^64 have the same: none of ours do
NAMES_MAX = 100_000  # of one person: 1.6 MB; an interaction has some 30
# No names: a message without a subject is not of whoever had none.
NOBODYS = ("", "email:", "phone:", "external:")

_SID = re.compile(r"[A-Z]{2}[0-9a-f]{32}")  # https://www.twilio.com/docs/glossary/what-is-a-sid
_SID_BYTES = re.compile(_SID.pattern.encode())
_MAIL = re.compile(r"[a-z0-9._+'-]{1,64}@[a-z0-9.-]{1,253}\.[a-z]{2,63}", re.IGNORECASE)
_EXT_ID = re.compile(r"tajo-[0-9a-f]{24}")  # how the mapper names a customer
_PHONE = re.compile(r"\+[1-9]\d{6,14}")  # E.164


def digest(key: bytes, name: str) -> bytes:
    """The keyed hash of a name: `email:…`, `phone:…`, `external:…`, a sid, an id or an ext_id as it is."""
    return hashlib.blake2b(name.encode(), key=key, digest_size=DIGEST_BYTES).digest()


class Tombstone(Struct, frozen=True, kw_only=True):
    """One person, forgotten."""

    erasure: str  # its id
    at_ms: int  # epoch milliseconds: what happened later is not covered
    digests: bytes  # one after another, sorted

    def split(self) -> list[bytes]:
        """Each of them."""
        return [
            self.digests[start : start + DIGEST_BYTES] for start in range(0, len(self.digests), DIGEST_BYTES)
        ]


def tombstone(key: bytes, erasure: str, names: Iterable[str], at_ms: int) -> Tombstone:
    """Of somebody with these names."""
    return Tombstone(
        erasure=erasure, at_ms=at_ms, digests=b"".join(sorted({digest(key, name) for name in names}))
    )


class Tombstones:
    """All there are: one look-up a name, and nothing at all while nobody was forgotten."""

    def __init__(self, key: bytes = b"", ones: Iterable[Tombstone] = ()) -> None:
        self._key = key
        self._at: dict[bytes, int] = {}  # until when it counts
        for one in ones:
            for each in one.split():
                self._at[each] = max(self._at.get(each, 0), one.at_ms)
        for name in NOBODYS if self._at else ():
            self._at.pop(digest(key, name), None)

    def __len__(self) -> int:
        return len(self._at)

    def until_ms(self, name: str) -> int | None:
        """Until when what is called so is forgotten; None for nobody's."""
        return self._at.get(digest(self._key, name)) if self._at else None

    def cover(self, names: Iterable[str], time_ms: int) -> bool:
        """Whether one of the names is theirs, and the time before they were forgotten."""
        return any((until := self.until_ms(name)) is not None and time_ms <= until for name in names)


def entity(identity: str) -> str:
    """The sid that an identity or a command's id begins with; an empty text where it is another word, as of surveys."""
    first = identity.partition("/")[0]
    return first if _SID.fullmatch(first) else ""


def sids_in(body: bytes) -> set[str]:
    """The sids that stand in a body, whatever its shape."""
    return {found.decode() for found in _SID_BYTES.findall(body)}


def names_in(body: bytes) -> set[str]:
    """Sids, mails, phones and ext_ids that stand in bytes of any shape: what is to be erased though nobody can read it."""
    plain = body.decode(errors="replace")
    found: set[str] = set()
    for text in {plain, unquote_plus(plain)}:
        found.update(_SID.findall(text))
        found.update(_EXT_ID.findall(text))
        found.update(f"email:{mail.lower()}" for mail in _MAIL.findall(text))
        found.update(f"phone:{phone}" for phone in _PHONE.findall(text))
    return found


def theirs(names: Iterable[str], has: Callable[[str], bool]) -> bool:
    """Whether what has these names is the person's, who has those that `has` says.

    A phone alone says so only where no mail or external id says it is somebody else's.
    """
    several = list(names)
    if any(has(name) for name in several if not name.startswith("phone:")):
        return True
    if any(name.startswith(("email:", "external:")) for name in several):
        return False
    return any(has(name) for name in several)
