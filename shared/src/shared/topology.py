"""Every stream, subject, durable and limit, once.  The bootstrap, the services and the documents are made from it."""

from dataclasses import dataclass
from datetime import timedelta

DAY_S = timedelta(days=1).total_seconds()
GIB = 1024**3


@dataclass(frozen=True)
class Stream:
    """A JetStream stream: file storage, s2, atomic batches allowed."""

    name: str
    subjects: tuple[str, ...]
    holds: str
    max_age_s: float = 0  # 0: no age limit
    max_bytes: int = -1
    discard_new: bool = False  # a full stream refuses, which is heard, instead of dropping, which is not
    duplicate_window_s: float = 120


@dataclass(frozen=True)
class Consumer:
    """A durable pull consumer with explicit acks."""

    stream: str
    durable: str
    batch: int  # messages fetched at once
    ack_wait_s: float  # how soon another hears what a killed one had in hand
    max_ack_pending: int
    filter_subject: str = ""  # of the stream's; empty for all
    ahead: bool = False  # whether the next batch comes while one is worked on


@dataclass(frozen=True)
class Bucket:
    """A key-value bucket that keeps the last value of each key."""

    name: str
    holds: str
    max_bytes: int = 1024**2
    max_age_s: float = 0  # 0: no age limit


TWILIO = Stream(
    "TWILIO",
    ("twilio.>",),
    "every raw event, as received (after redaction)",
    max_bytes=100 * GIB,  # ~43 million events of 2.5 KB
    discard_new=True,
    duplicate_window_s=2 * 3600,  # the broker keeps the ids in memory; the book knows what is older
)
BREVO = Stream("BREVO", ("brevo.>",), "commands", max_age_s=30 * DAY_S, duplicate_window_s=2 * 3600)
RECEIPTS = Stream(
    "RECEIPTS", ("receipt.>",), "what became of each command, and before each call what is about to be sent"
)
DEAD = Stream("DEAD", ("dead.>",), "original bytes and headers, why, where, who, tries", max_age_s=90 * DAY_S)
QUARANTINE = Stream(
    "QUARANTINE",
    ("quarantine.ingest",),
    "wrongly signed requests, raw, to re-check",
    max_age_s=DAY_S,
    max_bytes=64 * 1024**2,  # then the oldest go: whoever floods it must not fill the disk
)

STREAMS = (TWILIO, BREVO, RECEIPTS, DEAD, QUARANTINE)

MAPPER = Consumer("TWILIO", "mapper", batch=1000, ack_wait_s=10, max_ack_pending=4000, ahead=True)
BREVO_SINK = Consumer(
    "BREVO", "brevo-sink", batch=500, ack_wait_s=12, max_ack_pending=4000, filter_subject="brevo.*.*.*"
)
BREVO_SINK_PAST = Consumer(
    "BREVO", "brevo-sink-past", batch=500, ack_wait_s=12, max_ack_pending=2000, filter_subject="brevo.past.>"
)

CONSUMERS = (MAPPER, BREVO_SINK, BREVO_SINK_PAST)

LEASES = Bucket("leases", "who works: a key for each service of which one process works and others stand by")
CURSORS = Bucket("cursors", "up to when the poller has read each resource: epoch milliseconds")
BACKFILLS = Bucket("backfills", "what of the past shall be read, and how far it is: a key for each resource")

STATUS = Bucket(
    "status", "heartbeats: what each process of each service says of itself, every 5 s", max_age_s=60
)

REPLAYS = Bucket(
    "replays",
    "what shall be made anew of the log, and how far it is: a key for each replay",
    max_bytes=64 * 1024**2,
)

ERASURES = Bucket(
    "erasures",
    "who was forgotten, in keyed hashes, and what each service has erased",
    max_bytes=8 * 1024**2,  # half a million hashes, some 60 MB of memory in each service that looks them up
)

BUCKETS = (CURSORS, BACKFILLS, STATUS, REPLAYS, ERASURES, LEASES)  # who has a lease finds all else there

PLANS = Bucket("plans", "plans of replays: what each would change", max_bytes=GIB, max_age_s=30 * DAY_S)

OBJECT_STORES = (PLANS,)

MESSAGE_BYTES_MAX = 8 * 1024**2  # deploy/nats/nats.conf max_payload says the same
BATCH_BYTES_MAX = MESSAGE_BYTES_MAX  # of messages read at once; a thousand of our events are 2 to 4 MB
