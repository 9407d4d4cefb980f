"""What of Brevo's state a plan does not explain: somebody did it by hand, or it was lost.  Pure."""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from shared.plan import ContactLine, Plan
from tajo.drift import Difference, Kind

_TOLD: frozenset[Kind] = frozenset({"contact_missing", "email", "attribute", "list_missing"})
"""What telling the contact again mends.  An event is never sent again, and what is one too many is not taken away."""


class Drift(Struct, frozen=True):
    """What was found at Brevo."""

    differences: tuple[Difference, ...]
    again: tuple[str, ...]  # customers whose contacts, told again, would be as they shall be
    contacts: int  # of ours, that Brevo has
    events: int
    until: str  # RFC 3339: events of then and later were not looked for


def unexplained(differences: Iterable[Difference], plan: Plan) -> list[Difference]:
    """Those that are not what the plan changes, or says that it stays."""
    lines = {one.ext_id: one for one in plan.contacts}
    events = {one.id for one in plan.events}
    return [
        one for one in differences
        if one.what not in events and not (one.ext_id in lines and _explained(one, lines[one.ext_id]))
    ]  # fmt: skip


def mended_by(differences: Iterable[Difference]) -> tuple[str, ...]:
    """The customers who are to be told again, in order."""
    return tuple(sorted({one.ext_id for one in differences if one.kind in _TOLD}))


def _explained(one: Difference, line: ContactLine) -> bool:
    match one.kind:
        case "contact_missing":
            return line.action == "create"
        case "contact_extra":
            return line.action == "leave"
        case "email":
            return line.email is not None or "email" in line.conflicts
        case "attribute":
            return one.what in (line.attributes.keys() | line.kept.keys() | set(line.conflicts))
        case "list_missing":
            return one.what in map(str, line.lists)
        case "list_extra":
            return one.what in map(str, line.lists_kept)
        case _:
            return False


def counted(found: Drift) -> Mapping[str, int]:
    """How many of each kind, the most first."""
    kinds: dict[str, int] = {}
    for one in found.differences:
        kinds[one.kind] = kinds.get(one.kind, 0) + 1
    return dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
