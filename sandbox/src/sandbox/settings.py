"""The sandbox's settings."""

from typing import Annotated

from msgspec import Meta, Struct

from sandbox.twilio import ACCOUNT_SID
from shared.settings import env


class Serve(Struct, frozen=True):
    """Of `tajo-sandbox serve`."""

    host: Annotated[str, env("TAJO_SANDBOX_HOST", "address of the local Brevo and Twilio")] = "127.0.0.1"
    port: Annotated[int, env("TAJO_SANDBOX_PORT", "their port")] = 8090
    api_key: Annotated[str, env("BREVO_API_KEY", "the key the local Brevo takes")] = "xkeysib-sandbox"
    hourly_scale: Annotated[
        int,
        Meta(ge=1, le=1_000_000),
        env("TAJO_SANDBOX_HOURLY_SCALE", "so many times the calls an hour that Brevo allows"),
    ] = 1
    account_sid: Annotated[str, env("TWILIO_ACCOUNT_SID", "the account of the local Twilio")] = ACCOUNT_SID
    auth_tokens: Annotated[
        str, env("TWILIO_AUTH_TOKEN", "the token the local Twilio takes; the first by comma")
    ] = "sandbox-auth-token"


class Play(Struct, frozen=True):
    """Of `tajo-sandbox play`."""

    auth_tokens: Annotated[
        str, env("TWILIO_AUTH_TOKEN", "what the webhooks are signed with; the first, of several by comma")
    ]
    public_url: Annotated[
        str, env("TAJO_PUBLIC_URL", "the URL Twilio would call: its signature covers it; else the target")
    ] = ""

    @property
    def token(self) -> str:
        """The primary auth token: the one Twilio signs with."""
        return self.auth_tokens.split(",")[0].strip()
