"""What Brevo holds, for people: at most 100 columns, plain where there is no terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sandbox.verify import Sent, State, key_of, latencies_ms, quantile, timeline

WIDTH_MAX = 100  # columns

_COLOURS = {
    "SUPPORT_REQUESTED": "cyan",
    "SUPPORT_RESOLVED": "green",
    "SUPPORT_ABANDONED": "red",
    "CONVERSATION_ENDED": "blue",
    "CSAT_SUBMITTED": "magenta",
}


def console() -> Console:
    """A console that is at most 100 columns wide, and exactly so where there is no terminal."""
    wide = Console(highlight=False)
    return Console(highlight=False, width=min(WIDTH_MAX, wide.width) if wide.is_terminal else WIDTH_MAX)


def contacts(state: State) -> Iterable[RenderableType]:
    """A panel for each contact, by name."""
    for contact in sorted(state["contacts"], key=lambda one: str(one["attributes"].get("FIRSTNAME", ""))):
        yield _contact(contact, timeline(state, contact["id"]))


def _contact(contact: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> RenderableType:
    attributes = sorted((name, value) for name, value in contact["attributes"].items() if name != "EXT_ID")
    left = Table.grid(padding=(0, 1))
    left.add_column(style="dim", no_wrap=True)
    left.add_column(overflow="ellipsis", no_wrap=True, max_width=26)
    for name, value in attributes:
        left.add_row(name, str(value))
    left.add_row("lists", ", ".join(map(str, contact["listIds"])))
    right = Table.grid(padding=(0, 1))
    for width in (8, 18, 9):
        right.add_column(min_width=width, no_wrap=True)
    for event in events:
        right.add_row(*_event(event))
    body = Table.grid(expand=True, padding=(0, 1))
    body.add_column(ratio=1)
    body.add_column(ratio=1)
    body.add_row(left, right)
    name = str(contact["attributes"].get("FIRSTNAME", "(no name)"))
    return Panel(
        body, title=Text(f"{name} · {key_of(contact)}", "bold"), title_align="left", border_style="dim"
    )


def _event(event: Mapping[str, Any]) -> tuple[Text, Text, Text]:
    properties, name = event["event_properties"], event["event_name"]
    more = properties.get("channel", "")
    if "csat_score" in properties:
        more = f"score {properties['csat_score']}"
    clock = event["event_date"][11:19]
    return Text(clock, "dim"), Text(name, _COLOURS.get(name, "")), Text(str(more), "dim")


def totals(state: State, sent: Sequence[Sent], streams: Mapping[str, int]) -> RenderableType:
    """Names and numbers, one a line; `streams` is empty where the broker is out of reach."""
    told = sum(len(webhook.moments) or 1 for webhook in sent)
    rows = {"webhooks": f"{len(sent)} sent, telling of {told} events"}
    if streams:
        log = streams["TWILIO"]
        rows["raw events"] = f"{log} in the log; {told - log} were repetitions"
        rows["commands"] = (
            f"{streams['BREVO']} for Brevo, {streams['RECEIPTS']} receipts, {streams['DEAD']} dead"
        )
    rows["Brevo"] = f"{len(state['contacts'])} contacts, {len(state['events'])} events"
    rows["Brevo calls"] = "\n".join(f"{count:4}  {call}" for call, count in state["requests"].items())
    rows["latency"] = _latency(latencies_ms(state, sent))
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, "dim"), value)
    return Panel(table, title=Text("Totals", "bold"), title_align="left", border_style="dim")


def _latency(took_ms: Sequence[int]) -> str:
    if not took_ms:
        return "nothing new arrived"
    p50, p99 = quantile(took_ms, 0.5), quantile(took_ms, 0.99)
    return f"p50 {p50:,} ms, p99 {p99:,} ms, from webhook to Brevo, over {len(took_ms)} events"


def unequal(found: Sequence[str]) -> RenderableType:
    """Every difference."""
    lines = [Text(f"✗ {difference}") for difference in found]
    title = Text(f"Brevo does not hold what was expected; differences: {len(found)}", "bold red")
    return Panel(Group(*lines), title=title, title_align="left", border_style="red")
