"""What is published: the one shape that events, commands, receipts and dead letters take on the bus."""

from msgspec import Struct

MSG_ID = "Nats-Msg-Id"  # https://docs.nats.io/using-nats/developer/develop_jetstream/model_deep_dive#message-deduplication


class Message(Struct, frozen=True):
    """A subject, the bytes, and the headers with Nats-Msg-Id among them."""

    subject: str
    body: bytes
    headers: dict[str, str]
