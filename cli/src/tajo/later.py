"""A command's module is imported when the command is asked for: `tajo up` needs none of what `tajo replay` does."""

import importlib
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

PLACES = {
    "up": "starting.up",
    "run": "starting.run",
    "bootstrap": "bootstrapping.bootstrap",
    "nats-config": "bootstrapping.nats_config",
    "connectors": "connectors.app",
    "mapping": "mapping.app",
    "customer": "customer.app",
    "trace": "trace.trace",
    "log": "log.app",
    "replay": "replaying.replay",
    "dlq": "dlq.app",
    "quarantine": "quarantine.app",
    "forget": "forget.forget",
}
"""By command, where its function is, or the application of its subcommands."""


class Later(TyperGroup):
    """The commands of PLACES; until one is asked for, an empty one has its name."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands.update((name, TyperCommand(name)) for name in PLACES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One of them; None where there is none of that name."""
        if cmd_name in PLACES:
            self.commands[cmd_name] = _imported(cmd_name)
        return super().get_command(ctx, cmd_name)


def _imported(command: str) -> Any:
    module, _, name = PLACES[command].partition(".")
    if module != "starting":  # which logs nothing itself, and need not wait for what does
        _quieten()
    found = getattr(importlib.import_module(f"tajo.{module}"), name)
    if isinstance(found, typer.Typer):
        group = typer.main.get_group(found)
        group.name = command
        return group
    alone = typer.Typer(add_completion=False)
    alone.command(command)(found)
    return typer.main.get_command(alone)


def _quieten() -> None:
    """What the modules of the services log must not stand among what is printed."""
    from shared.log import set_up

    set_up("tajo", level="warning")
