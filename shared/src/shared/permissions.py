"""Who may say and hear what at the broker: a user for each service, made of topology.py.

Nobody subscribes to a stream's subjects: what a stream holds comes by JetStream into the inbox of who asked for it, and
each user has inboxes of its own.  What may be asked are exactly the requests our code makes; nats-py 2.16 makes those of
https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-1.md, ADR-8 (buckets) and ADR-20 (objects).
"""

import json
from dataclasses import dataclass

from shared.topology import (
    BACKFILLS,
    BREVO,
    BREVO_SINK,
    BREVO_SINK_PAST,
    BUCKETS,
    CURSORS,
    DEAD,
    ERASURES,
    LEASES,
    MAPPER,
    PLANS,
    QUARANTINE,
    RECEIPTS,
    REPLAYS,
    STATUS,
    STREAMS,
    TWILIO,
    Bucket,
    Consumer,
    Stream,
)

API = "$JS.API"


@dataclass(frozen=True)
class User:
    """One user of the broker."""

    name: str  # of its service; `tajo` is whoever operates
    publish: tuple[str, ...]

    @property
    def inbox(self) -> str:
        """What its inboxes begin with."""
        return f"_INBOX_{self.name}"

    @property
    def password(self) -> str:
        """The variable its password stands in: TAJO_NATS_PASSWORD of who operates, TAJO_INGEST_NATS_PASSWORD of ingest."""
        service = "" if self.name == "tajo" else f"{self.name.upper().replace('-', '_')}_"
        return f"TAJO_{service}NATS_PASSWORD"


def _info(stream: str) -> str:
    return f"{API}.STREAM.INFO.{stream}"


def _hears(consumer: Consumer) -> list[str]:
    """Work through a durable."""
    of = f"{consumer.stream}.{consumer.durable}"
    return [f"{API}.CONSUMER.INFO.{of}", f"{API}.CONSUMER.MSG.NEXT.{of}", f"$JS.ACK.{of}.>"]


def _reads(*streams: Stream) -> list[str]:
    """Read what it holds through a consumer without a name, pushed into an inbox (shared/past.py)."""
    return [
        subject
        for stream in (one.name for one in streams)
        for subject in (
            _info(stream),
            f"{API}.CONSUMER.CREATE.{stream}",  # one with a name would stand behind a further dot
            f"{API}.CONSUMER.INFO.{stream}.*",
            f"$JS.FC.{stream}.>",
        )
    ]


def _bucket(bucket: Bucket, *keys: str) -> list[str]:
    """Read all of a bucket, and write these keys."""
    stream, subjects = f"KV_{bucket.name}", f"$KV.{bucket.name}"
    return [_info(stream), f"{API}.DIRECT.GET.{stream}.{subjects}.>", *(f"{subjects}.{key}" for key in keys)]


def _puts(store: Bucket) -> list[str]:
    """Put objects, over those that are there."""
    stream = f"OBJ_{store.name}"
    return [
        _info(stream),
        f"{API}.STREAM.MSG.GET.{stream}",
        f"{API}.STREAM.PURGE.{stream}",
        f"$O.{store.name}.>",
    ]


def _service(name: str, *, lease: bool) -> list[str]:
    """What each does: heartbeats, dead letters, the lease."""
    held = _bucket(LEASES, name) if lease else []
    return [_info(f"KV_{STATUS.name}"), f"$KV.{STATUS.name}.{name}.*", f"dead.{name}", *held]


def _erases(*streams: Stream) -> list[str]:
    return [f"{API}.STREAM.MSG.DELETE.{stream.name}" for stream in streams]


_USERS = (
    User("tajo", ("$JS.>", "$KV.>", "$O.>", *(subject for one in STREAMS for subject in one.subjects))),
    User(
        "ingest",
        (
            *_service("ingest", lease=False),
            *TWILIO.subjects,
            *QUARANTINE.subjects,
            _info(TWILIO.name),
            *_bucket(ERASURES, "done.*.ingest.*"),
        ),
    ),
    User(
        "mapper",
        (
            *_service("mapper", lease=True),
            *BREVO.subjects,
            *_hears(MAPPER),
            *_reads(TWILIO, BREVO, RECEIPTS, DEAD, QUARANTINE),
            *_bucket(REPLAYS, "*"),
            f"{API}.STREAM.PURGE.KV_{REPLAYS.name}",
            *_puts(PLANS),
            *_bucket(ERASURES, "tombstone.*", "done.*.mapper"),
            *_erases(TWILIO, DEAD, QUARANTINE),
        ),
    ),
    User(
        "brevo-sink",
        (
            *_service("brevo-sink", lease=True),
            f"dead.{BREVO_SINK_PAST.durable}",
            *RECEIPTS.subjects,
            *_hears(BREVO_SINK),
            *_hears(BREVO_SINK_PAST),
            *_reads(BREVO, RECEIPTS),
            f"{API}.CONSUMER.MSG.NEXT.{RECEIPTS.name}.*",  # brevo_sink/recall.py pulls
            f"{API}.CONSUMER.DELETE.{RECEIPTS.name}.*",  # the stream has no durables
            *_bucket(ERASURES, "done.*.brevo-sink"),
            *_erases(BREVO, RECEIPTS),
        ),
    ),
    User(
        "poller",
        (
            *_service("poller", lease=True),
            *TWILIO.subjects,
            *_reads(TWILIO),
            *_bucket(CURSORS, "*"),
            *_bucket(BACKFILLS, "*"),
            *_bucket(ERASURES),
        ),
    ),
    User(
        "console",
        (
            *_reads(TWILIO, BREVO, RECEIPTS, DEAD),
            *(subject for one in BUCKETS if one is not ERASURES for subject in _bucket(one)),
        ),
    ),
)

USERS = {one.name: one for one in _USERS}


def server_configuration() -> str:
    """deploy/nats/users.conf: the broker of nats.conf, for these users alone.  Passwords stand in its environment."""
    blocks = "\n".join(map(_block, _USERS))
    return f"""\
# Made by `tajo nats-config` of shared/permissions.py; a test holds it equal.  docs/security.md says what each may, and why.
# The passwords stand in the broker's environment.  One that is unset keeps the broker from starting; one that is empty
# opens the user to everybody, so set them all.
include ./nats.conf
authorization {{
  users: [
{blocks}
  ]
}}
"""


def _block(one: User) -> str:
    # Subjects in quotes: a $ without them begins the name of a variable.
    allowed = "".join(f"\n          {json.dumps(subject)}" for subject in dict.fromkeys(one.publish))
    return f"""\
    {{
      user: {one.name}, password: ${one.password}
      permissions: {{
        publish: [{allowed}
        ]
        subscribe: ["{one.inbox}.>"]
      }}
    }}"""
