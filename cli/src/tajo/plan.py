"""What a plan says, as a person reads it."""

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.markup import escape

from shared.command import Value
from shared.event import epoch_ms
from shared.plan import ContactLine, EventLine, Plan, Summary

SHOWN = 20  # contacts, and events, unless all are wished

AUTOMATIONS = (
    "Brevo has no switch for the past: automations that begin with these events may begin now, and write to people. "
    "event_date tells when it happened."
)

_CONTACT = {
    "create": "[green]+[/green] {} is created",
    "change": "[yellow]~[/yellow] {} changes",
    "again": "[cyan]=[/cyan] {} is told again",
    "keep": "[dim]·[/dim] {} keeps what it would no longer be told",
    "leave": "[red]-[/red] {} stays at Brevo, and is told nothing more: under this mapping there is no such customer",
}
_EVENT = {
    "send": "[green]+[/green] {}",
    "suppress": "[dim]·[/dim] {}  too old, is not sent",
    "sent": "[dim]=[/dim] {}  stays at Brevo, and would not be sent now",
}


def old_events(plan: Plan) -> int:
    """How many of the events it sends happened longer ago than `event_age_max_s`."""
    oldest_ms = plan.asked.at_ms - plan.asked.event_age_max_s * 1000
    return sum(one.action == "send" and epoch_ms(one.time) < oldest_ms for one in plan.events)


def changes(plan: Plan) -> bool:
    """Whether Brevo would be told anything."""
    told = plan.summary
    return bool(told.create or told.change or told.again or told.relinks or told.send)


def show(plan: Plan, out: Console, *, whole: bool = False) -> None:
    """Print it: how many of each, then whom, then what."""
    out.print(
        f"[bold]Plan {plan.id}[/bold]: the log up to {plan.sequence:,}, {_mapping(plan)}", soft_wrap=True
    )
    for line in _summary(plan.summary, plan.asked.event_age_max_s):
        out.print(f"  {line}", highlight=False, soft_wrap=True)
    contacts = plan.contacts if whole else plan.contacts[:SHOWN]
    events = plan.events if whole else plan.events[:SHOWN]
    _some("Contacts", map(_contact, contacts), len(plan.contacts) - len(contacts), out)
    _some("Events", map(_event, events), len(plan.events) - len(events), out)
    if old := old_events(plan):
        out.print(f"\n[yellow]{many(old, 'event')} that happened longer ago will be sent.[/yellow]  {AUTOMATIONS}", soft_wrap=True)  # fmt: skip
    elif plan.summary.suppress:
        out.print(
            f"\n{many(plan.summary.suppress, 'event')} that happened longer than {_age(plan.asked.event_age_max_s)} before are not sent; "
            f"--send-old-events sends them.  {AUTOMATIONS}",
            soft_wrap=True, highlight=False,
        )  # fmt: skip


def _mapping(plan: Plan) -> str:
    if plan.mapping == plan.mapping_before:
        return f"mapping {plan.mapping}, which is in force"
    return f"mapping {plan.mapping} instead of {plan.mapping_before}"


def _summary(told: Summary, age_s: float) -> Iterator[str]:
    yield (
        f"contacts   {told.create:,} created, {told.change:,} changed, {told.again:,} told again, "
        f"{told.unchanged + told.keep:,} not told, {told.leave:,} left; {many(told.customers, 'customer')} in all"
    )
    yield f"lists      joined {many(told.lists, 'time')}"
    if told.relinks:
        yield f"names      {told.relinks:,} changed: contacts that are another customer's now, or one that several become"
    if told.conflicts:
        yield f"conflicts  {told.conflicts:,}: another contact that stays has the same email or phone"
    yield f"events     {told.send:,} sent, {told.suppress:,} too old ({_age(age_s)})"
    if told.sent:
        yield f"           {told.sent:,} that Brevo has and would not be sent now; they stay"


def _some(title: str, shown: Iterable[Iterable[str]], more: int, out: Console) -> None:
    lines = [line for one in shown for line in one]
    if lines:
        out.print(f"\n[bold]{title}[/bold]")
    for line in lines:
        out.print(f"  {line}", soft_wrap=True, highlight=False)
    if more:
        out.print(f"  … {more:,} more: --all shows them, and they are in the file", highlight=False)


def _contact(one: ContactLine) -> Iterator[str]:
    yield _CONTACT[one.action].format(escape(one.ext_id))
    for was in one.was:
        yield f"    named    {escape(was)} → {escape(one.ext_id)}"
    if one.email:
        yield f"    email    {_change(*one.email)}"
    for name, (before, after) in sorted(one.attributes.items()):
        yield f"    {escape(name)}  {_change(before, after)}"
    for name, value in sorted(one.kept.items()):
        yield f"    {escape(name)}  {_said(value)} stays, though no longer told"
    if one.lists:
        yield f"    lists    joins {_numbers(one.lists)}"
    if one.lists_kept:
        yield f"    lists    stays in {_numbers(one.lists_kept)}, though no longer told"
    for name in one.conflicts:
        yield f"    [red]conflict[/red] another contact that stays has this {escape(name)}: it is left out, or the contact parked (TAJO_BREVO_CONFLICTS)"


def _event(one: EventLine) -> Iterator[str]:
    time = one.time or "at a time nobody knows"
    yield _EVENT[one.action].format(f"{time} {escape(one.name)}  {escape(one.ext_id)}")


def _change(before: Value | None, after: Value | None) -> str:
    return f"{_said(before)} → {_said(after)}"


def _said(value: Value | None) -> str:
    return "·" if value is None else escape(str(value))


def _numbers(ids: Iterable[int]) -> str:
    return ", ".join(map(str, ids))


def _age(seconds: float) -> str:
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds:g} s"


def many(count: int, what: str) -> str:
    """So many of something."""
    return f"{count:,} {what}{'s' * (count != 1)}"
