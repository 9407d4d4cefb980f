"""Before the first command: Brevo has the attributes with the right types, and the lists.

Brevo drops what has no attribute, or the wrong type, in silence; so it is looked at before, and what is missing
is made.  What cannot be made, a person is told of, all at once.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from brevo_sink.answer import of_contact
from brevo_sink.brevo import Brevo, Reply, Result
from shared.body import NOT_JSON
from shared.config import Attribute, Config
from shared.verdict import Pause

REMEDY = "mend it at Brevo, and it goes on by itself; or in the connector file, and start again"

_ACCEPTABLE = {
    "text": {"text", "category", "multiple-choice"},  # options are told by their label
    "float": {"float"},
    "date": {"date"},
    "boolean": {"boolean"},
}


def missing(fields: Mapping[str, Attribute], body: bytes) -> tuple[dict[str, str], list[str]]:
    """From the answer of GET /contacts/attributes: what to make, name → type; and what clashes.  Pure.  Raises NOT_JSON.

    https://developers.brevo.com/reference/getattributes-1
    """
    listed = msgspec.json.decode(body, type=dict[str, Any]).get("attributes")
    have = {
        str(one.get("name", "")).upper(): str(one.get("type") or one.get("category") or "")
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and one.get("category") in ("normal", "category")
    }
    create: dict[str, str] = {}
    clashes: list[str] = []
    for field in fields.values():
        if field.attribute in ("email", "SMS"):
            continue
        kind = have.get(field.attribute)
        if kind is None:
            create[field.attribute] = field.type
        elif kind not in _ACCEPTABLE[field.type]:
            clashes.append(f"attribute {field.attribute} is {kind} at Brevo and must be {field.type}")
    return create, clashes


class Looked(Struct, frozen=True):
    """What Brevo has of what the mapping needs: attributes to make, name → type, and what a person must mend."""

    create: dict[str, str]
    problems: tuple[str, ...] = ()


async def look(brevo: Brevo, config: Config) -> Looked | Pause:
    """Look, and change nothing; a Pause where Brevo does not let us look."""
    flex = config.flex
    if not flex.sync.customers:
        return Looked({})
    lists = list(filter(None, (flex.lists.support_contacts, flex.lists.csat_respondents)))
    # At once: a sink that takes over hears nothing before it has looked.
    attributes, *listed = await asyncio.gather(
        _get(brevo, "/contacts/attributes"), *(_get(brevo, f"/contacts/lists/{id_}") for id_ in lists)
    )
    if (stop := why_not(attributes)) is not None:
        return stop
    assert isinstance(attributes, Reply)  # noqa: S101 - anything else has stopped us
    try:
        create, problems = missing(config.fields, attributes.body)
    except NOT_JSON:
        return Pause("what answers is not Brevo: its attributes are no JSON", "is TAJO_BREVO_URL right?")
    for id_, result in zip(lists, listed, strict=True):
        if isinstance(result, Reply) and result.status == 404:
            problems.append(f"list {id_} does not exist")
        elif (stop := why_not(result)) is not None:
            return stop
    return Looked(create, tuple(problems))


async def preflight(brevo: Brevo, config: Config) -> Pause | None:
    """Look, and make what is missing.  Returns what stands in the way, or None."""
    looked = await look(brevo, config)
    if isinstance(looked, Pause):
        return looked
    problems = list(looked.problems)
    for name, kind in looked.create.items():
        await brevo.turn("contacts")
        made = await brevo.call("POST", f"/contacts/attributes/normal/{name}", json={"type": kind})
        if not isinstance(made, Reply) or made.status >= 300 and not _exists(made):  # noqa: RUF021 - as one reads it
            problems.append(f"attribute {name} ({kind}) is missing and cannot be made")
    return Pause("; ".join(problems), REMEDY) if problems else None


async def _get(brevo: Brevo, path: str) -> Result:
    await brevo.turn("contacts")
    return await brevo.call("GET", path)


def why_not(result: Result) -> Pause | None:
    """Why we cannot go on; None after a 200."""
    if not isinstance(result, Reply):
        return Pause(
            f"Brevo cannot be reached ({result.why})", "is the network there, and TAJO_BREVO_URL right?"
        )
    if result.status == 200:
        return None
    verdict = of_contact(result.status, result.headers, result.body)
    if isinstance(verdict, Pause):
        return verdict
    return Pause(f"Brevo answers {result.status}", "it is tried again; look at status.brevo.com if it stays")


def _exists(made: Reply) -> bool:
    """Somebody made it meanwhile, or it is one of Brevo's own: "Attribute name must be unique"."""
    return made.status == 400 and b"unique" in made.body
