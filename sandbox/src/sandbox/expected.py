"""What Brevo shall hold after the day, written by hand from the definitions in docs/glossary.md.

Nothing here is computed by the connector: that is what makes the comparison worth something.
"""

from dataclasses import dataclass

from sandbox.task import DAY
from sandbox.twilio import sid

SUPPORT, CSAT = 32, 33  # the lists of config/tajo.yaml


@dataclass(frozen=True)
class Event:
    """One event in a contact's timeline: its name, when it happened, and the task it is about."""

    name: str
    clock: str  # HH:MM:SS.mmm, UTC
    task: str  # by its readable name

    @property
    def key(self) -> tuple[str, str, str]:
        """As Brevo tells of it: event_date, event_name, task_sid."""
        return f"{DAY}T{self.clock}Z", self.name, sid("WT", self.task)


@dataclass(frozen=True)
class Contact:
    """One contact.  SMS is read back without its +."""

    email: str
    attributes: dict[str, str | int]
    lists: tuple[int, ...]
    events: tuple[Event, ...]

    @property
    def key(self) -> str:
        """What it is found by: its email, else its phone."""
        return self.email or str(self.attributes["SMS"])


REQUESTED, RESOLVED, ABANDONED = "SUPPORT_REQUESTED", "SUPPORT_RESOLVED", "SUPPORT_ABANDONED"
ENDED, SCORED = "CONVERSATION_ENDED", "CSAT_SUBMITTED"

CONTACTS = (
    Contact(
        "maria.lopez@example.com",
        {
            "FLEX_IDENTITY": sid("FX", "maria"),  # the chat's, which is the later
            "FIRSTNAME": "María López",
            "SMS": "12025550101",
            "LAST_SUPPORT_DATE": DAY,
            "SUPPORT_TICKET_COUNT": 2,
            "AVG_WAIT_TIME": 31,  # of 20.000 and 41.000
            "CSAT_SCORE": 5,
            "PREFERRED_CHANNEL": "webchat",  # one each, the chat is the later
            "VIP_TIER": "gold",
            "ACCOUNT_ID": "ACME-1001",
        },
        (SUPPORT, CSAT),
        (
            Event(REQUESTED, "09:00:00.101", "maria calls"),
            Event(ENDED, "09:03:18.033", "maria calls"),
            Event(RESOLVED, "09:03:48.015", "maria calls"),
            Event(SCORED, "09:05:02.500", "maria calls"),
            Event(REQUESTED, "14:10:00.005", "maria chats"),
            Event(ENDED, "14:21:00.420", "maria chats"),
            Event(RESOLVED, "14:22:00.018", "maria chats"),
        ),
    ),
    Contact(
        "sam.lee@example.com",
        {
            "FLEX_IDENTITY": sid("FX", "sam"),
            "FIRSTNAME": "Sam Lee",
            "LAST_SUPPORT_DATE": DAY,
            "SUPPORT_TICKET_COUNT": 1,  # the survey's task belongs to the chat
            "AVG_WAIT_TIME": 5,
            "CSAT_SCORE": 4,
            "PREFERRED_CHANNEL": "webchat",
            "VIP_TIER": "silver",
        },
        (SUPPORT, CSAT),
        (
            Event(REQUESTED, "10:00:00.005", "sam chats"),
            Event(ENDED, "10:14:30.900", "sam chats"),
            Event(RESOLVED, "10:15:00.018", "sam chats"),
            Event(REQUESTED, "10:20:00.700", "sam's survey"),  # a virtual task is a task
            Event(SCORED, "10:20:00.700", "sam chats"),
            Event(RESOLVED, "10:20:01.950", "sam's survey"),
        ),
    ),
    Contact(
        "ivo.petrov@example.com",
        {
            "FLEX_IDENTITY": "+12025550103",  # the caller's, which is the later
            "FIRSTNAME": "Ivo Petrov",
            "SMS": "12025550103",
            "LAST_SUPPORT_DATE": DAY,
            "SUPPORT_TICKET_COUNT": 2,
            "AVG_WAIT_TIME": 10,  # of 12.345 and 7.655
            "PREFERRED_CHANNEL": "voice",
            "VIP_TIER": "silver",
            "ACCOUNT_ID": "ACME-1003",
        },
        (SUPPORT,),
        (
            Event(REQUESTED, "10:30:00.020", "ivo writes"),
            Event(ENDED, "10:44:10.007", "ivo writes"),  # the conversation closed before the wrap-up
            Event(RESOLVED, "10:45:00.333", "ivo writes"),
            Event(REQUESTED, "16:00:00.202", "ivo calls"),
            Event(ENDED, "16:05:20.404", "ivo calls"),
            Event(RESOLVED, "16:05:50.505", "ivo calls"),
        ),
    ),
    Contact(
        "nina.berg@example.com",
        {
            "FLEX_IDENTITY": "+12025550104",
            "FIRSTNAME": "Nina Berg",
            "SMS": "12025550104",
            "LAST_SUPPORT_DATE": DAY,
            "SUPPORT_TICKET_COUNT": 3,
            "AVG_WAIT_TIME": 12,  # of 9.100 and 14.300: nobody took the call
            "PREFERRED_CHANNEL": "sms",
            "ACCOUNT_ID": "ACME-1004",
        },
        (SUPPORT,),
        (
            Event(REQUESTED, "11:00:00.300", "nina writes"),
            Event(ENDED, "11:12:00.700", "nina writes"),
            Event(RESOLVED, "11:13:00.808", "nina writes"),
            Event(REQUESTED, "11:40:00.404", "nina calls"),
            Event(ABANDONED, "11:40:41.700", "nina calls"),
            Event(REQUESTED, "15:00:00.500", "nina writes again"),
            Event(ENDED, "15:08:00.909", "nina writes again"),
            Event(RESOLVED, "15:08:30.123", "nina writes again"),
        ),
    ),
    Contact(
        "tom.becker@example.com",
        {
            "FLEX_IDENTITY": "+12025550105",
            "FIRSTNAME": "Tom Becker",
            "SMS": "12025550105",
            "LAST_SUPPORT_DATE": DAY,
            "SUPPORT_TICKET_COUNT": 1,
            "AVG_WAIT_TIME": 33,
            "PREFERRED_CHANNEL": "voice",
            "VIP_TIER": "gold",
            "ACCOUNT_ID": "ACME-1005",
        },
        (SUPPORT,),
        (
            Event(REQUESTED, "12:40:00.111", "tom calls"),
            Event(ENDED, "12:52:00.260", "tom calls"),
            Event(RESOLVED, "12:52:44.044", "tom calls"),
        ),
    ),
    Contact(
        "",
        {
            "FLEX_IDENTITY": "+12025550106",
            "FIRSTNAME": "Yuki Tanaka",
            "SMS": "12025550106",
            "LAST_SUPPORT_DATE": DAY,
            "SUPPORT_TICKET_COUNT": 1,
            "AVG_WAIT_TIME": 3,
            "PREFERRED_CHANNEL": "voice",
        },
        (SUPPORT,),
        (
            Event(REQUESTED, "13:05:00.050", "yuki calls"),
            Event(ENDED, "13:09:09.090", "yuki calls"),
            Event(RESOLVED, "13:09:30.303", "yuki calls"),
        ),
    ),
    Contact(
        "ola.nowak@example.com",
        {
            "FLEX_IDENTITY": sid("FX", "ola"),
            "FIRSTNAME": "Ola Nowak",
            "LAST_SUPPORT_DATE": DAY,
            "SUPPORT_TICKET_COUNT": 2,
            "AVG_WAIT_TIME": 16,  # of 15.000 and 16.000: half up
            "PREFERRED_CHANNEL": "webchat",
            "VIP_TIER": "platinum",  # gold in the morning
            "ACCOUNT_ID": "ACME-1007",
        },
        (SUPPORT,),
        (
            Event(REQUESTED, "09:30:00.001", "ola chats"),
            Event(ENDED, "09:41:00.610", "ola chats"),
            Event(RESOLVED, "09:41:30.710", "ola chats"),
            Event(REQUESTED, "16:30:00.002", "ola chats again"),
            Event(ENDED, "16:39:00.820", "ola chats again"),
            Event(RESOLVED, "16:39:30.930", "ola chats again"),
        ),
    ),
    Contact(
        "ravi.patel@example.com",
        {
            "FLEX_IDENTITY": "+12025550108",
            "FIRSTNAME": "Ravi Patel",
            "SMS": "12025550108",
            "LAST_SUPPORT_DATE": DAY,
            "SUPPORT_TICKET_COUNT": 2,
            "AVG_WAIT_TIME": 45,  # of 60.000 and 30.000
            "CSAT_SCORE": 3,
            "PREFERRED_CHANNEL": "sms",
            "VIP_TIER": "bronze",
        },
        (SUPPORT, CSAT),
        (
            Event(REQUESTED, "08:59:00.404", "ravi chats"),
            Event(ENDED, "09:10:00.515", "ravi chats"),
            Event(RESOLVED, "09:10:40.640", "ravi chats"),
            Event(REQUESTED, "13:30:00.808", "ravi writes"),
            Event(ENDED, "13:44:00.144", "ravi writes"),
            Event(RESOLVED, "13:44:20.244", "ravi writes"),
            Event(SCORED, "13:50:00.900", "ravi writes"),
        ),
    ),
    Contact(
        "zoe.king@example.com",
        {
            "FLEX_IDENTITY": "+12025550109",
            "FIRSTNAME": "Zoe King",
            "SMS": "12025550109",
            "LAST_SUPPORT_DATE": DAY,
            "SUPPORT_TICKET_COUNT": 1,
            "PREFERRED_CHANNEL": "voice",
            "VIP_TIER": "silver",
            "ACCOUNT_ID": "ACME-1009",
        },
        (SUPPORT,),
        (
            Event(REQUESTED, "15:20:00.220", "zoe calls"),
            Event(ABANDONED, "15:21:05.525", "zoe calls"),
        ),
    ),
)
