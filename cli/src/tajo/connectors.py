"""`tajo connectors`: what each command does stands in a module of its own."""

import typer

from tajo import installing, reporting, syncing

app = typer.Typer(no_args_is_help=True, help="Install, test, sync and look at a connector.")
app.command("install")(installing.install)
app.command("test")(installing.look)
app.command("status")(reporting.status)
app.command("sync")(syncing.sync)
app.command("verify")(syncing.verify)
app.command("list")(installing.show)
app.command("remove")(installing.remove)
