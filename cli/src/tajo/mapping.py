"""`tajo mapping`: check the connector file, see what it does, and test it."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table

from shared.config import Config
from shared.connector_file import ConfigError, load
from tajo import preview, stories
from tajo.output import FAILED, AsJson, err, out, show

app = typer.Typer(no_args_is_help=True, help="Check the connector file, preview what it does, and test it.")
app.command("preview")(preview.preview)
app.command("test")(stories.run_stories)

ConfigFile = Annotated[Path, typer.Argument(envvar="TAJO_CONFIG", help="The connector file.")]
CONFIG = Path("config/tajo.yaml")


@app.command()
def check(file: ConfigFile = CONFIG, *, as_json: AsJson = False) -> None:
    """Say whether the file can be used; every mistake with its line and column."""
    try:
        config = load(file)
    except ConfigError as error:
        if as_json:
            show({"file": str(file), "good": False, "problems": error.problems})
        for problem in () if as_json else error.problems:
            err.print(
                f"{file}:{problem.line}:{problem.column}: {problem.what}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
        raise typer.Exit(FAILED) from error
    if as_json:
        show(_mapped(file, config))
        return
    out.print(
        _table(
            "Attributes",
            "Twilio",
            "Brevo",
            [(s, f"{f.attribute} ({f.type})") for s, f in config.fields.items()],
        )
    )
    out.print(
        _table("Events", "Twilio", "Brevo", [(type_, rule.name) for type_, rule in config.rules.items()])
    )
    if not config.fields and not config.rules:
        err.print(f"{file} maps nothing: write field_mapping and event_mapping", style="yellow", markup=False)
    out.print(f"{file} is good; mapping {config.hash}", highlight=False, soft_wrap=True)


@app.command()
def schema(*, as_json: AsJson = False) -> None:  # noqa: ARG001 - it is JSON either way, and takes what all others take
    """Print the JSON Schema of the file, for editors."""
    show(schema_of_file())


def _mapped(file: Path, config: Config) -> dict[str, object]:
    """What a good file maps."""
    return {
        "file": str(file),
        "good": True,
        "mapping": config.hash,
        "attributes": [
            {"twilio": source, "brevo": field.attribute, "type": field.type}
            for source, field in config.fields.items()
        ],
        "events": [{"twilio": type_, "brevo": rule.name} for type_, rule in config.rules.items()],
        "problems": [],
    }


def schema_of_file() -> dict[str, object]:
    """The schema, as it is shipped in config/tajo.schema.json."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tajo connector file",
        **msgspec.json.schema(Config),
    }


def _table(title: str, left: str, right: str, rows: list[tuple[str, str]]) -> Table:
    table = Table(left, right, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table
