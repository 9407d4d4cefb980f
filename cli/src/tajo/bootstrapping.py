"""`tajo bootstrap` and `tajo nats-config`: what the broker has to be like."""

import os
import sys
from typing import Annotated

import typer

from shared.bootstrap import Replicas
from shared.bootstrap import bootstrap as make_streams
from shared.login import login_as, new_password
from shared.permissions import USERS, server_configuration
from shared.settings import load as load_settings
from shared.topology import BUCKETS, CONSUMERS, OBJECT_STORES, STREAMS
from tajo.broker import run as until_done
from tajo.output import NATS_URL, AsJson, NatsUrl, out, reaching, show


def bootstrap(nats_url: NatsUrl = NATS_URL, *, as_json: AsJson = False) -> None:
    """Create or update the streams, consumers and buckets.  Repeating it changes nothing."""
    with reaching(nats_url, as_json=as_json):
        login, told = login_as("tajo", nats_url, os.environ), load_settings(Replicas, os.environ)
        until_done(make_streams(nats_url, login=login, replicas=told.replicas))
    made = {
        "streams": [one.name for one in STREAMS],
        "consumers": [one.durable for one in CONSUMERS],
        "buckets": [one.name for one in BUCKETS],
        "object stores": [one.name for one in OBJECT_STORES],
    }
    if as_json:
        show(made)
        return
    for kind, names in made.items():
        out.print(f"{kind}: {', '.join(names)}", highlight=False)


def nats_config(
    *,
    passwords: Annotated[
        bool,
        typer.Option("--passwords", help="Print new passwords instead, as lines of an environment file."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the broker's users and what each may: deploy/nats/users.conf."""
    if passwords:
        made = {one.password: new_password() for one in USERS.values()}
        text = "".join(f"{name}={value}\n" for name, value in made.items())
    else:
        made, text = {"users.conf": server_configuration()}, server_configuration()
    if as_json:
        show(made)
    else:
        sys.stdout.write(text)
