"""docs/scaling.md: the arithmetic from what was measured to a billion events a day.  Pure."""

import math
from collections.abc import Mapping

from shared.topology import TWILIO

DAY_S = 86_400
EVENTS = 1_000_000_000  # a day
PEAK = 3  # the busiest hour's rate, as a multiple of the day's mean: assumed
FULL = 0.7  # of a core that a process may take in the busiest hour
CONTACT_EVENTS = 10  # raw events of one contact of a customer: the mean of history.py
CONTACT_TOLD = 3  # events Brevo is told of one, at most: requested, resolved or abandoned, ended
TWILIO_GIB = TWILIO.max_bytes / 1024**3
REPLICAS = 3
CALLS = 60  # a second in each of Brevo's buckets, plan Extended: https://developers.brevo.com/docs/api-limits
BATCH = 200  # events in one call
NEEDED = (
    "ingest.two_cpu_us",
    "ingest.broker_cpu_us",
    "mapper.cpu_us",
    "mapper.broker_cpu_us",
    "mapper.per_s",
    "rebuild.per_core_s",
    "rebuild.event_bytes",
    "sink.event_cpu_us",
)


def cores(per_s: float, cpu_us: float) -> int:
    """That carry so many a second at so much CPU each, and are not full."""
    return math.ceil(per_s * cpu_us / 1e6 / FULL)


def markdown(found: Mapping[str, float]) -> str:
    """The page; `found` has the numbers of NEEDED."""
    mean, peak = EVENTS / DAY_S, PEAK * EVENTS / DAY_S
    ingest, taken, mapper, given, sink = (
        found[f"{name}_us"]
        for name in (
            "ingest.two_cpu",
            "ingest.broker_cpu",
            "mapper.cpu",
            "mapper.broker_cpu",
            "sink.event_cpu",
        )
    )
    mappers = math.ceil(peak / (found["mapper.per_s"] * FULL))
    told = CONTACT_TOLD / CONTACT_EVENTS  # of a raw event
    contacts = CALLS * DAY_S
    size = found["rebuild.event_bytes"]
    raw_day = EVENTS * size
    month_h = 30 * EVENTS / found["rebuild.per_s"] / mappers / 3600
    return f"""# A billion events a day

What [performance.md](performance.md) measured, multiplied. Nothing on this page was run at this size: it says what would be needed, what
is built for it, and what is not. `make bench` writes it anew from its figures; on a machine with other work they are lower than they
need be, and so is all that follows.

{EVENTS:,} raw events a day are {mean:,.0f}/s; in the busiest hour, taken as {PEAK} times that, {peak:,.0f}/s. The table is for that
hour, and a process is given {FULL:.0%} of a core in it.

| part | measured | needed | is it built? |
|---|---|---|---|
| ingest | {ingest:.0f} µs of CPU a webhook, where two work at once | {cores(peak, ingest)} processes | yes: any number work at once, each with a spool of its own |
| the log | {taken + given:.0f} µs of the broker's CPU a raw event, one replica: {taken:.0f} to take it from ingest, {given:.0f} to give it to the mapper and take what that says | {cores(peak, taken + given)} streams, each led by another core of the cluster | no: TWILIO is one stream. Its subjects have the shard (64 of them) to split it by |
| mapper | {found["mapper.per_s"]:,.0f} raw events/s, {mapper:.0f} µs of CPU each | {mappers} that work at once | by account only: see below |
| sink | {sink:.0f} µs of CPU an event, {BATCH} in a call; {told:.1f} events a raw event | {cores(peak * told, sink)} | one works; Brevo's limits end before it does: see below |

**Disk.** {size:,.0f} bytes an event, as stored with its headers, make {raw_day / 1e12:.1f} TB a day, {REPLICAS * raw_day / 1e12:.1f} TB in
{REPLICAS} replicas, before compression. What s2 saves of a real project's attributes was not measured: the log of the bench repeats itself
more than one would. TWILIO's limit of {TWILIO_GIB:.0f} GiB holds {TWILIO.max_bytes / size / mean / 3600:.1f} hours of that and must be raised; `topology.py` has it.

**The mapper** is the narrow place. One works, others stand by, because who is who is decided across all interactions of an account. Accounts
know nothing of each other, so one deployment each for a part of the accounts works today, and is the way to take while no single
account brings more than {found["mapper.per_s"] * FULL / PEAK * DAY_S / 1e6:,.0f} million events a day, {PEAK} times as fast in its busiest hour. Beyond that a second hop is needed: the
first reads by shard of the interaction and says whose an event is, the second folds by customer, each a durable of its own on subjects
by shard. That is not built.

**A book that is lost** is made anew at {found["rebuild.per_s"]:,.0f} raw events a second by two processes, {found["rebuild.per_core_s"]:,.0f} for each
second of CPU. A month of a billion a day over {mappers} mappers takes each {month_h:,.0f} hours by the clock. Long before that the log wants an age limit and the book a copy elsewhere (its one file,
with `VACUUM INTO`; the mapper goes on from the sequence in it).

**Brevo** ends it first. At {CALLS} calls a second in each bucket an account takes {CALLS * BATCH:,} events a second, and is told
{peak * told:,.0f} in the busiest hour ({CONTACT_TOLD} at most of {CONTACT_EVENTS} raw ones): enough; but {contacts / 1e6:.1f} million writes of contacts. A contact of a customer is some {CONTACT_EVENTS} raw events and changes its contact at
least once: {EVENTS / CONTACT_EVENTS / 1e6:,.0f} million writes, {EVENTS / CONTACT_EVENTS / contacts:.0f} times what is allowed. One account of Brevo
thus carries some {contacts * CONTACT_EVENTS / 1e6:,.0f} million raw events a day with every contact up to date. More needs limits agreed with Brevo, or
several accounts, each its own deployment.
"""
