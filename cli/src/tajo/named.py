"""How contacts are called at Brevo whose customers are called otherwise.  Pure."""

from collections.abc import Mapping

from brevo_sink.fold import Relinked, change
from shared.plan import Plan
from shared.receipt import Receipt, Told

SUBJECTS = ("receipt.delivered.contact.upsert", "receipt.delivered.contact.relink")  # that say of names


def hear(hops: dict[str, str], receipt: Receipt) -> None:
    """Note in `hops`, name → name, what a receipt says of them; receipts come in their order."""
    match change(receipt):
        case Told(ext_id=ext_id, name=name):
            hops.pop(ext_id, None)  # it is its own, whoever was called so before
            if name:
                hops[name] = ext_id
        case Relinked(was, ext_id):
            hops.pop(ext_id, None)
            hops[was] = ext_id
        case _:
            pass


def names(hops: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """Name at Brevo → ext_id of the customer, also of those that the plan will name anew."""
    all_of_them = {**hops, **{was: line.ext_id for line in plan.contacts for was in line.was}}
    return {name: _end(name, all_of_them) for name in all_of_them}


def _end(name: str, hops: Mapping[str, str]) -> str:
    """Where following them leads; a circle is followed once."""
    seen = {name}
    while (further := hops.get(name)) is not None and further not in seen:
        seen.add(further)
        name = further
    return name
