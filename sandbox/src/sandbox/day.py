"""A day in a contact centre, Friday 20 November 2026, as the webhooks Twilio would send.  Pure, and the same always.

`expected.py` says what Brevo shall hold after it.  Each function is one customer's day, in order.
"""

from collections.abc import Iterable, Iterator

from sandbox.flex import OUR_NUMBER, messaging, voice
from sandbox.task import Agent, Task, at
from sandbox.twilio import (
    TaskRouterEvent,
    Webhook,
    conversation_webhook,
    interaction_webhook,
    sid,
    stream_webhook,
    survey_webhook,
    taskrouter_webhook,
)

ANA = Agent("ana@example.com", "Ana Pérez")
BEN = Agent("ben@example.com", "Ben Okafor")
CHLOE = Agent("chloe@example.com", "Chloé Martin")


def webhooks() -> list[Webhook]:
    """The whole day; those of one customer stand in their order."""
    days = (_agents, _maria, _sam, _ivo, _nina, _tom, _yuki, _ola, _ravi, _zoe, _withheld)
    return [webhook for day in days for webhook in day()]


def _callbacks(whom: str, *events: Iterable[TaskRouterEvent]) -> Iterator[Webhook]:
    """Each event as a callback of its own."""
    for several in events:
        for event in several:
            yield taskrouter_webhook(event, whom)


# -- the day ------------------------------------------------------------------------------------------------


def _agents() -> Iterator[Webhook]:
    """Agents come, pause and go.  Brevo hears nothing of it."""
    yield from _callbacks("agents", [
        ANA.moves("08:55:00.012", "Offline", "Available", 55_000),
        BEN.moves("08:58:30.240", "Offline", "Available", 54_800),
        CHLOE.moves("09:45:10.481", "Offline", "Available", 60_100),
        ANA.moves("12:00:04.309", "Available", "Break", 11_104),
        ANA.moves("12:30:02.777", "Break", "Available", 1_798),
        BEN.moves("17:00:01.115", "Available", "Offline", 28_890),
    ])  # fmt: skip


def _maria() -> Iterator[Webhook]:
    """A call, a survey after it by the survey route, and a web chat in the afternoon: one email, two channels."""
    known = {"email": "maria.lopez@example.com", "phone": "+12025550101", "name": "María López"}
    call = Task("maria calls", "voice", "Support Voice", voice(
        "+12025550101", "maria calls", customers=known, customer_tier="gold", account_id="ACME-1001"
    ))  # fmt: skip
    yield from _callbacks(
        "maria",
        call.created("09:00:00.101"),
        call.accepted("09:00:20.187", ANA),  # 20.000 s after 09:00:00.187
        call.wrapup("09:03:18.033", ANA),
        call.updated("09:03:46.401", {"conversations": {"outcome": "Resolved", "content": "Refund issued"}}),
    )
    last = list(_callbacks("maria", call.completed("09:03:48.015", ANA)))
    yield from last
    yield from last[-1:] * 2  # our answer was slow: Twilio tries again
    yield survey_webhook(
        "maria", at("09:05:02.500"), score=5, call_sid=sid("CA", "maria calls"), survey="csat"
    )
    chat = Task("maria chats", "chat", "Support Chat", messaging(
        "web", "maria chats", "", "María López",
        customers={"email": known["email"], "name": known["name"]}, customerId=sid("FX", "maria"),
        pre_engagement_data={"friendlyName": "María López", "email": known["email"], "query": "My invoice"},
        customer_tier="gold", account_id="ACME-1001",
    ))  # fmt: skip
    yield from _callbacks(
        "maria",
        chat.created("14:10:00.005"),
        chat.accepted("14:10:41.091", BEN),  # 41.000 s
        chat.wrapup("14:21:00.420", BEN),
        chat.completed("14:22:00.018", BEN),
    )


def _sam() -> Iterator[Webhook]:
    """A web chat, all of it through Event Streams, once twice; the score comes later, on a task of its own."""
    mail = "sam.lee@example.com"
    chat = Task("sam chats", "chat", "Support Chat", messaging(
        "web", "sam chats", "", "Sam Lee", customers={"email": mail, "name": "Sam Lee"},
        customerId=sid("FX", "sam"), customer_tier="silver",
        pre_engagement_data={"friendlyName": "Sam Lee", "email": mail, "query": "Where is my order?"},
    ))  # fmt: skip
    begun = [*chat.created("10:00:00.005"), *chat.accepted("10:00:05.091", ANA)]  # 5.000 s
    yield stream_webhook(begun, "sam")
    yield stream_webhook(begun, "sam")  # Event Streams delivers at least once
    yield stream_webhook([*chat.wrapup("10:14:30.900", ANA), *chat.completed("10:15:00.018", ANA)], "sam")
    # A virtual task, as Flex Insights counts surveys.  It is a task: Brevo hears of its creation and completion.
    survey = Task("sam's survey", "default", "Surveys", {
        "customers": {"email": mail},
        "conversations": {"conversation_id": sid("KD", "sam chats"), "virtual": "Yes"},
        "survey": {"name": "post-chat", "score": 4, "comment": "Quick and kind"},
    })  # fmt: skip
    yield from _callbacks("sam", survey.created("10:20:00.700"), survey.completed("10:20:01.950", None))


def _ivo() -> Iterator[Webhook]:
    """WhatsApp in the morning, with Conversations' and Interactions' own webhooks; a call from the same phone."""
    address, conversation = "whatsapp:+12025550103", sid("CH", "ivo writes")
    chat = Task("ivo writes", "chat", "Support Chat", messaging(
        "whatsapp", "ivo writes", address, "Ivo Petrov",
        customers={"phone": address, "email": "ivo.petrov@example.com", "name": "Ivo Petrov"},
        customer_tier="silver", account_id="ACME-1003",
    ))  # fmt: skip
    chat_service, messaging_service = sid("IS", "sandbox"), sid("MG", "sandbox")
    customer = {"ConversationSid": conversation, "MessagingServiceSid": messaging_service, "Attributes": "{}"}
    yield conversation_webhook(
        "ivo", "onConversationAdded", at("10:29:58.120"), **customer,
        ChatServiceSid=chat_service, FriendlyName="", State="active",
        MessagingBinding_Address=address, MessagingBinding_ProxyAddress=f"whatsapp:{OUR_NUMBER}",
    )  # fmt: skip
    yield conversation_webhook(
        "ivo", "onParticipantAdded", at("10:29:58.300"), ConversationSid=conversation, Attributes="{}",
        ParticipantSid=sid("MB", "ivo"), RoleSid=sid("RL", "customer"), MessagingBinding_Type="WHATSAPP",
        MessagingBinding_Address=address, MessagingBinding_ProxyAddress=f"whatsapp:{OUR_NUMBER}",
    )  # fmt: skip
    yield interaction_webhook("ivo", "onInteractionCreated", "ivo writes", MediaChannelType="whatsapp")
    yield from _callbacks(
        "ivo", chat.created("10:30:00.020"), chat.accepted("10:30:12.451", CHLOE)
    )  # 12.345 s
    yield interaction_webhook(
        "ivo", "onParticipantJoined", "ivo writes", MediaChannelType="whatsapp",
        ParticipantSid=sid("UT", "chloe"), ParticipantType="agent", TaskSid=chat.sid,
    )  # fmt: skip
    said = (("10:31:00.042", "Hola & gracias + 100% ✓", CHLOE.sid), ("10:32:10.042", "", address))
    for index, (clock, body, author) in enumerate(said):
        yield conversation_webhook(
            "ivo", "onMessageAdded", at(clock), **customer, Index=str(index), Body=body, Author=author,
            MessageSid=sid("IM", f"ivo {index}"), ParticipantSid=sid("MB", author),
        )  # fmt: skip
    closed = conversation_webhook(
        "ivo", "onConversationStateUpdated", at("10:44:10.007"), ConversationSid=conversation,
        ChatServiceSid=chat_service, MessagingServiceSid=messaging_service,
        StateFrom="active", StateTo="closed", Reason="API",
    )  # fmt: skip
    yield closed
    yield closed
    yield from _callbacks("ivo", chat.wrapup("10:44:10.650", CHLOE), chat.completed("10:45:00.333", CHLOE))
    yield interaction_webhook(
        "ivo", "onChannelStatusUpdated", "ivo writes", MediaChannelType="whatsapp", ChannelStatus="closed"
    )
    call = Task("ivo calls", "voice", "Support Voice", voice("+12025550103", "ivo calls"))
    yield from _callbacks(
        "ivo",
        call.created("16:00:00.202"),
        call.accepted("16:00:07.943", BEN),  # 7.655 s
        call.wrapup("16:05:20.404", BEN),
        call.completed("16:05:50.505", BEN),
    )


def _nina() -> Iterator[Webhook]:
    """Two texts that are answered, and a call between them from the same phone that is not."""
    known = {"email": "nina.berg@example.com", "phone": "+12025550104", "name": "Nina Berg"}

    def text(name: str) -> Task:
        return Task(name, "sms", "Support Chat", messaging(
            "sms", name, "+12025550104", "Nina Berg", customers=known, account_id="ACME-1004"
        ))  # fmt: skip

    first, second = text("nina writes"), text("nina writes again")
    yield from _callbacks(
        "nina",
        first.created("11:00:00.300"),
        first.accepted("11:00:09.486", CHLOE),  # 9.100 s
        first.wrapup("11:12:00.700", CHLOE),
        first.completed("11:13:00.808", CHLOE),
    )
    call = Task("nina calls", "voice", "Support Voice", voice("+12025550104", "nina calls"))
    yield from _callbacks("nina", call.created("11:40:00.404"), call.canceled("11:40:41.700"))
    ended = list(_callbacks(
        "nina",
        second.created("15:00:00.500"),
        second.accepted("15:00:14.886", ANA),  # 14.300 s
        second.wrapup("15:08:00.909", ANA),
        second.completed("15:08:30.123", ANA),
    ))  # fmt: skip
    yield from ended
    yield ended[0]  # a retry, long after


def _tom() -> Iterator[Webhook]:
    """A call handed on to billing; each event comes as a callback and again through Event Streams."""
    known = {"email": "tom.becker@example.com", "phone": "+12025550105", "name": "Tom Becker"}
    call = Task("tom calls", "voice", "Support Voice", voice(
        "+12025550105", "tom calls", customers=known, account_id="ACME-1005", customer_tier="gold"
    ))  # fmt: skip
    events = [
        *call.created("12:40:00.111"),
        *call.accepted("12:40:33.597", ANA, after_s=6.2),  # 33.400 s
        *call.transferred("12:46:02.000", ANA, CHLOE, "Billing"),
        *call.wrapup("12:52:00.260", CHLOE),
        *call.completed("12:52:44.044", CHLOE),
    ]
    yield from _callbacks("tom", events)
    yield stream_webhook(events[:6], "tom")
    yield stream_webhook(events[6:], "tom")


def _yuki() -> Iterator[Webhook]:
    """A caller of whom only the phone is known."""
    call = Task("yuki calls", "voice", "Support Voice", voice(
        "+12025550106", "yuki calls", customers={"phone": "+12025550106", "name": "Yuki Tanaka"}
    ))  # fmt: skip
    yield from _callbacks(
        "yuki",
        call.created("13:05:00.050"),
        call.accepted("13:05:03.386", BEN, after_s=2.5),  # 3.250 s
        call.wrapup("13:09:09.090", BEN),
        call.completed("13:09:30.303", BEN),
    )


def _ola() -> Iterator[Webhook]:
    """Two web chats; between them Ola becomes a platinum customer."""

    def chat(name: str, tier: str) -> Task:
        mail = "Ola.Nowak@Example.com"  # an address is one however it is written
        return Task(name, "chat", "Support Chat", messaging(
            "web", name, "", "Ola Nowak", customers={"email": mail, "name": "Ola Nowak"},
            customerId=sid("FX", "ola"), customer_tier=tier, account_id="ACME-1007",
            pre_engagement_data={"friendlyName": "Ola", "email": mail, "query": "A question"},
        ))  # fmt: skip

    first, second = chat("ola chats", "gold"), chat("ola chats again", "platinum")
    yield from _callbacks(
        "ola",
        first.created("09:30:00.001"),
        first.accepted("09:30:15.087", BEN),  # 15.000 s
        first.wrapup("09:41:00.610", BEN),
        first.completed("09:41:30.710", BEN),
    )
    yield stream_webhook(
        [
            *second.created("16:30:00.002"),
            *second.accepted("16:30:16.088", CHLOE),  # 16.000 s
            *second.wrapup("16:39:00.820", CHLOE),
            *second.completed("16:39:30.930", CHLOE),
        ],
        "ola",
    )


def _ravi() -> Iterator[Webhook]:
    """A text with a survey after it, posted as a form, and a web chat: one email, two channels."""
    known = {"email": "ravi.patel@example.com", "phone": "+12025550108", "name": "Ravi Patel"}
    text = Task("ravi writes", "sms", "Support Chat", messaging(
        "sms", "ravi writes", "+12025550108", "Ravi Patel", customers=known, customer_tier="bronze"
    ))  # fmt: skip
    chat = Task("ravi chats", "chat", "Support Chat", messaging(
        "web", "ravi chats", "", "Ravi Patel", customers={"email": known["email"], "name": "Ravi Patel"},
        customerId=sid("FX", "ravi"), customer_tier="bronze",
    ))  # fmt: skip
    yield from _callbacks(
        "ravi",
        chat.created("08:59:00.404"),
        chat.accepted("09:00:00.490", BEN),  # 60.000 s
        chat.wrapup("09:10:00.515", BEN),
        chat.completed("09:10:40.640", BEN),
        text.created("13:30:00.808"),
        text.accepted("13:30:30.894", ANA),  # 30.000 s
        text.wrapup("13:44:00.144", ANA),
        text.completed("13:44:20.244", ANA),
    )
    yield survey_webhook(
        "ravi",
        at("13:50:00.900"),
        as_form=True,
        score=3,
        conversation_sid=sid("CH", "ravi writes"),
        survey="csat",
    )


def _zoe() -> Iterator[Webhook]:
    """A known caller who gives up after an agent did not answer in time."""
    known = {"email": "zoe.king@example.com", "phone": "+12025550109", "name": "Zoe King"}
    call = Task("zoe calls", "voice", "Support Voice", voice(
        "+12025550109", "zoe calls", customers=known, customer_tier="silver", account_id="ACME-1009"
    ))  # fmt: skip
    yield from _callbacks("zoe", call.created("15:20:00.220"), call.canceled("15:21:05.525"))


def _withheld() -> Iterator[Webhook]:
    """A call with a withheld number: nobody's, so Brevo hears nothing."""
    call = Task("somebody calls", "voice", "Support Voice", voice("+266696687", "somebody calls"))
    yield from _callbacks("somebody", call.created("15:45:00.001"), call.canceled("15:45:20.020"))
