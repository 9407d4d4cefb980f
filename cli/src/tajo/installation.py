"""What the commands know of an installation: environment, credential store and connector file, as the services see them."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from msgspec import Struct
from prometheus_client import CollectorRegistry

from brevo_sink.brevo import Brevo
from brevo_sink.budget import Budget
from brevo_sink.metrics import Metrics
from brevo_sink.settings import Settings as BrevoSettings
from poller.endpoints import LIMITS
from poller.rates import Rates
from poller.settings import Settings as TwilioSettings
from poller.twilio import Credentials, Twilio
from shared.config import Config
from shared.connector_file import load as load_config
from shared.credentials import NAMES, Store, layered, store_of
from shared.settings import SettingsError, load, secure_url, text

CONNECTOR = "twilio-flex"
CONNECTORS = (CONNECTOR,)
TRIES_MAX = 3  # of a call somebody waits for

_FORMS = {
    "TWILIO_ACCOUNT_SID": (r"AC[0-9a-f]{32}", "AC and 32 digits or letters a to f"),
    "TWILIO_AUTH_TOKEN": (r"[!-~]+(?:\s*,\s*[!-~]+)*", "as the Console shows it; several by comma"),
    "TWILIO_API_KEY_SID": (r"SK[0-9a-f]{32}", "SK and 32 digits or letters a to f"),
    "TWILIO_API_KEY_SECRET": (r"[!-~]+", "as the Console showed it once"),
    "TAJO_FLEX_FLOW_SID": (r"FO[0-9a-f]{32}", "FO and 32 digits or letters a to f"),
    "BREVO_API_KEY": (r"[!-~]+", "as Brevo showed it once, xkeysib-…"),
    "TAJO_API_KEY": (r"[!-~]{16,}", "at least 16 letters, digits or signs"),
}
"""What each value looks like; a line break or a space within is a mistake of copying."""


class UnknownConnectorError(SettingsError):
    """Which connector was asked for, and which there are."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no connector is called {name}; there is {', '.join(CONNECTORS)}")


def known(name: str) -> None:
    """Raises UnknownConnectorError where there is no such connector."""
    if name not in CONNECTORS:
        raise UnknownConnectorError(name)


class Installation(Struct, frozen=True):
    """Read once; nothing is called yet."""

    environ: Mapping[str, str]  # options, environment, store: in this order
    store: Store
    twilio: TwilioSettings
    config: Config
    moved: bool = False  # whether Twilio is told of another public URL than the environment has

    @property
    def values(self) -> dict[str, str]:
        """What may be stored, as far as it is known."""
        found = {name: text(name, self.environ)[0] for name in NAMES}
        return {name: value for name, value in found.items() if value}

    @property
    def account_sid(self) -> str:
        """The Twilio account; empty while nobody names one."""
        named = self.twilio.account_sid or self.config.flex.account_sid
        return named if re.fullmatch(_FORMS["TWILIO_ACCOUNT_SID"][0], named) else ""

    @property
    def public_url(self) -> str:
        """What stands before /webhooks in the URLs Twilio calls; empty while it is no address Twilio could call."""
        url = (text("TAJO_PUBLIC_URL", self.environ)[0] or "").rstrip("/")
        return url if url.startswith("https://") else ""

    @property
    def tokens(self) -> list[Credentials]:
        """The auth tokens: webhooks are signed with them."""
        words = [word.strip() for word in self.twilio.auth_tokens.split(",") if word.strip()]
        return [Credentials(self.account_sid, self.account_sid, word) for word in words]

    @property
    def credentials(self) -> list[Credentials]:
        """What to call Twilio with: the API key if there is one, then each auth token."""
        sid, secret = self.twilio.api_key_sid, self.twilio.api_key_secret
        return [*([Credentials(self.account_sid, sid, secret)] if sid else []), *self.tokens]


def read(name: str, environ: Mapping[str, str], given: Mapping[str, str] | None = None) -> Installation:
    """An installation of the connector `name`; what is `given` goes before the environment.

    Raises SettingsError and ConfigError.
    """
    known(name)
    given = given or {}
    told = {**environ, **given, **{f"{name}_FILE": "" for name in given}}
    store = store_of(told)
    stored = store.read().get(name)
    told = layered(told, *([stored] if stored else []))
    problems = [problem for variable in NAMES if (problem := text(variable, told)[1])]
    if problems:
        raise SettingsError("\n".join(problems))
    twilio = load(TwilioSettings, told)
    for product, url in twilio.urls.items():
        secure_url(f"TAJO_TWILIO_{product.upper()}_URL", url, allow_http=twilio.allow_http)
    moved = given.get("TAJO_PUBLIC_URL", "").rstrip("/") not in (
        "",
        environ.get("TAJO_PUBLIC_URL", "").rstrip("/"),
    )
    return Installation(told, store, twilio, twilio.over(load_config(twilio.config)), moved)


def mistakes(values: Mapping[str, str]) -> list[str]:
    """What of the values cannot be right; repeats none of them.  Pure."""
    found = [
        f"{name} is not well formed: {hint}"
        for name, (form, hint) in _FORMS.items()
        if name in values and not re.fullmatch(form, values[name])
    ]
    found += [
        f"{name} is not set: {why}"
        for name, why in (
            ("TWILIO_ACCOUNT_SID", "--account-sid"), ("TWILIO_AUTH_TOKEN", "Twilio signs webhooks with it; --auth-token"),
        )
        if name not in values
    ]  # fmt: skip
    if ("TWILIO_API_KEY_SID" in values) != ("TWILIO_API_KEY_SECRET" in values):
        found.append("TWILIO_API_KEY_SID and TWILIO_API_KEY_SECRET belong together: one of them is not set")
    return found


@asynccontextmanager
async def calling_twilio(installation: Installation, credentials: Credentials) -> AsyncIterator[Twilio]:
    """A client of Twilio, at the rates of the connector file."""
    told = installation.config.flex.poller
    rates = Rates({**LIMITS, **told.rates}, told.rate_fraction)
    twilio = Twilio(
        credentials,
        urls=installation.twilio.urls,
        rates=rates,
        tries_max=TRIES_MAX,
        log_calls=False,
    )
    try:
        yield twilio
    finally:
        await twilio.close()


@asynccontextmanager
async def calling_brevo(installation: Installation, *, share: float = 1.0) -> AsyncIterator[Brevo]:
    """A client of Brevo, that takes a share of our part of its limits.  Raises SettingsError where BREVO_API_KEY is not set."""
    settings = load(BrevoSettings, installation.environ)
    brevo = Brevo(
        url=secure_url("TAJO_BREVO_URL", settings.brevo_url, allow_http=settings.allow_http),
        api_key=settings.api_key,
        budget=Budget(settings.rate_fraction * share, settings.plan),
        metrics=Metrics(CollectorRegistry()),
        log_calls=False,
    )
    try:
        yield brevo
    finally:
        await brevo.close()
