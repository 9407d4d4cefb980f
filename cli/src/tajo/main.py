"""tajo: the command line.  Where each command stands: later.py.  How each ends: output.py."""

import typer

from tajo.later import Later

CODES = (
    "Exit codes: 0 done; 1 a check failed, or what was asked for is not there; 2 wrong usage; "
    "69 the broker or an API cannot be reached; 78 the settings or the connector file cannot be used; "
    "130 interrupted."
)

app = typer.Typer(
    cls=Later,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,  # they hold secrets
    help="Twilio Flex → Brevo, event-sourced.",
    epilog=CODES,
)
app.callback()(lambda: None)  # without commands of its own, Typer wants this to see several


def main() -> None:
    """Entry point."""
    app()
