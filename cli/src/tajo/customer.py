"""`tajo customer show`: why Brevo's contact says what it says, read from the mapper's book."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from mapper.book import Book
from mapper.customer import Aggregates
from mapper.explain import Explained, explain
from mapper.step import Policy
from shared.config import Config
from shared.connector_file import load
from tajo.output import FAILED, AsJson, failure, out, reading
from tajo.output import show as show_json

app = typer.Typer(no_args_is_help=True, help="What is known of a customer, and why.")


class NobodyError(Exception):
    """What was looked for, and where."""


def find(book_file: Path, config: Config, whom: str) -> Explained:
    """The customer with this mail, phone, external id, ext_id, or sid of an interaction.  Raises NobodyError."""
    if not book_file.exists():
        raise NobodyError(f"no book at {book_file}: set TAJO_DATA_DIR to where the mapper keeps its files")
    book = Book(book_file, read_only=True)
    try:
        ids = book.find(whom.strip())
        if not ids:
            raise NobodyError("the book knows nobody by that mail, phone, external id, ext_id or sid")
        page = book.page_of(ids[:1])
        customer = page.customers[ids[0]]
        policy = Policy.of(config)
        aggregates = book.aggregates(ids[:1], config.flex.channels).get(customer.id, Aggregates())
        interactions = sorted(book.interactions_of(customer.id), key=lambda one: (one.start_ms, one.key))
        return explain(customer, page.known, interactions, aggregates, policy)
    finally:
        book.close()


@app.command("show")
def show_customer(
    whom: Annotated[str, typer.Argument(help="A mail, a phone (+…), an external id, an ext_id or a sid.")],
    config: Annotated[Path, typer.Option(envvar="TAJO_CONFIG", help="The connector file.")] = Path(
        "config/tajo.yaml"
    ),
    data_dir: Annotated[
        Path, typer.Option(envvar="TAJO_DATA_DIR", help="Where the mapper keeps its book.")
    ] = Path(".tajo/data"),
    *,
    as_json: AsJson = False,
) -> None:
    """Explain a customer: identifiers, interactions, each attribute with what made it, and what Brevo was told."""
    with reading(as_json=as_json):
        told = load(config)
    try:
        found = find(data_dir / "mapper/book.sqlite", told, whom)
    except NobodyError as error:
        raise failure(str(error), code=FAILED, as_json=as_json) from error
    if as_json:
        show_json(found)
    else:
        _print(found)


def _print(one: Explained) -> None:
    told = "" if one.told else ", of whom Brevo was not told"
    out.print(f"[bold]{one.ext_id}[/bold]{told}; lists {', '.join(map(str, one.list_ids)) or 'none'}")
    _list(out, "Identifiers", one.identifiers)
    _list(out, "Interactions", one.interactions)
    columns = (Column(name, overflow="fold") for name in ("Attribute", "Value", "Source", "Because"))
    table = Table(*columns, title="Attributes", title_justify="left")
    for fact in one.facts:
        because = "\n".join(fact.because)
        table.add_row(fact.attribute, escape(str(fact.value)), fact.source, escape(because))
    out.print(table)
    _list(out, "Events Brevo was told of, or will never be", one.events)
    _list(out, "Events that wait", one.waiting)


def _list(out: Console, title: str, lines: tuple[str, ...]) -> None:
    if lines:
        out.print(f"\n[bold]{title}[/bold]")
        for line in lines:
            out.print(f"  {escape(line)}", soft_wrap=True, highlight=False)
