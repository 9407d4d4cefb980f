"""The certificate of a rebuild: what Brevo shall hold, what it holds, and every difference."""

from collections.abc import Iterable
from itertools import islice

from msgspec import Struct
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tajo import drift
from tajo.drift import Difference, Kind
from tajo.readback import Held

KEPT_MAX = 1000  # differences that stand in the certificate; all are counted
SHOWN_MAX = 20  # of these, printed
TEXT_MAX = 40  # characters of a value that is printed

_WORDS: dict[Kind, str] = {
    "contact_missing": "the contact is not there",
    "contact_extra": "a contact that follows from nothing in the log",
    "email": "another email",
    "attribute": "another value",
    "list_missing": "not on the list",
    "list_extra": "on the list, and should not be",
    "event_missing": "the event is not there",
    "event_doubled": "the event is there more than once",
    "event_extra": "an event that follows from nothing in the log",
    "event_elsewhere": "the event is at another customer's contact",
    "event_time": "the event is there with another time",
}


class Certificate(Struct, kw_only=True, rename="camel"):
    """What a rebuild came to."""

    name: str
    equal: bool
    sequence: int  # of TWILIO: what it includes
    mapping: str  # hash
    expected: Held
    found: Held
    not_sent: int  # events older than a time, which nobody wanted to be sent
    dead: int  # commands that Brevo refused for good
    differences: dict[Kind, int]
    first: tuple[Difference, ...]  # of these, KEPT_MAX at most
    verified: str  # when, RFC 3339
    seconds: float  # spent on it, over all runs that were not killed
    calls: int  # to Brevo, likewise


def differing(found: Iterable[Difference]) -> tuple[dict[Kind, int], tuple[Difference, ...]]:
    """How many of each kind, and the first."""
    rest = iter(found)
    first = tuple(islice(rest, KEPT_MAX))
    counts = drift.counted(first)
    for kind, count in drift.counted(rest).items():
        counts[kind] = counts.get(kind, 0) + count
    return counts, first


def show(one: Certificate, out: Console) -> None:
    """Print it."""
    word = "[green]✓ equal[/green]" if one.equal else "[red]✗ not equal[/red]"
    out.print(f"{word}  {one.name}: TWILIO up to {one.sequence:,}, mapping {one.mapping}", highlight=False)
    table = Table("")
    for title in ("contacts", "attributes", "list memberships", "events"):
        table.add_column(title, justify="right")
    table.add_column("hash")
    for title, held in (("expected", one.expected), ("found", one.found)):
        counts = (held.contacts, held.attributes, held.lists, held.events)
        table.add_row(title, *(f"{count:,}" for count in counts), held.hash)
    out.print(table)
    for kind, count in sorted(one.differences.items()):
        out.print(f"  {count:,}: {_WORDS[kind]}", highlight=False)
    for difference in one.first[:SHOWN_MAX]:
        out.print(f"    {_line(difference)}", highlight=False, soft_wrap=True)
    if (more := sum(one.differences.values()) - SHOWN_MAX) > 0:
        out.print(f"    … and {more:,} more")
    if one.dead:
        out.print(f"  {one.dead:,} commands that Brevo refused for good", highlight=False)
    if one.not_sent:
        out.print(
            f"  {one.not_sent:,} events are older than may be and were not sent: --send-old-events sends them",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    out.print(
        f"verified {one.verified}; took {one.seconds:,.0f} s and {one.calls:,} calls to Brevo",
        highlight=False,
    )


def _line(one: Difference) -> str:
    values = (
        "" if one.expected is None and one.found is None else f"{_short(one.expected)} → {_short(one.found)}"
    )
    return escape("  ".join(filter(None, (one.ext_id, one.kind, one.what, values))))


def _short(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 1]}…"
