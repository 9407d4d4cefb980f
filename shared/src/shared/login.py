"""How a process opens the broker: as which user, and whether over TLS.  What the user may stands in permissions.py."""

import asyncio
import secrets
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from msgspec import Struct
from nats.aio.transport import TcpTransport

from shared.permissions import USERS, User
from shared.settings import SettingsError, env, load, text

CLOSE_S = 1.0  # for a socket to be closed; one of this machine takes none
CERTIFICATES = (
    "TAJO_NATS_CA must hold who signed the broker's certificate, which must name the host of TAJO_NATS_URL"
)
DENIED = "the broker's users are not of this version: give it this version's deploy/nats/users.conf, and start it again"


@dataclass(frozen=True)
class Login:
    """What opens the broker; nothing does where it knows no users."""

    user: User | None = None
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None

    def options(self) -> dict[str, Any]:
        """As nats-py takes them.

        TLS is begun before anything is read: nats-py goes on in the clear, with the password, where a server says that
        it knows none.  https://docs.nats.io/running-a-nats-service/configuration/securing_nats/tls#tls-first-handshake
        """
        given: dict[str, Any] = {"inbox_prefix": self.inbox}
        if self.password and self.user:
            given |= {"user": self.user.name, "password": self.password}
        if self.tls:
            given |= {"tls": self.tls, "tls_handshake_first": True}
        return given

    def servers(self, url: str) -> list[str]:
        """The servers a URL names; a name and password of its own give way to ours."""
        found = [one.strip() for one in url.split(",")]
        return [_without_user(one) for one in found] if self.password else found

    @property
    def inbox(self) -> str:
        """What its inboxes begin with."""
        return self.user.inbox if self.user else "_INBOX"

    @property
    def remedy(self) -> str:
        """What to do where the broker refuses it."""
        if self.user is None:
            return "the broker knows users: give this process one"
        return f"set {self.user.password} to what the broker has for its user {self.user.name}"


NOBODY = Login()


class Tls(Struct, frozen=True):
    """Read from the environment by shared.settings.load."""

    ca: Annotated[str, env("TAJO_NATS_CA", "who signed the broker's certificate, PEM")] = ""
    certificate: Annotated[Path | None, env("TAJO_NATS_CERTIFICATE", "a file: our certificate, PEM")] = None
    key: Annotated[Path | None, env("TAJO_NATS_KEY", "a file: the key of our certificate, PEM")] = None


def login_as(name: str, url: str, environ: Mapping[str, str]) -> Login:
    """As the user of this name, from the environment; TLS where the URL is tls://.  Raises SettingsError."""
    if not all(_names_server(one.strip()) for one in url.split(",")):
        raise SettingsError("TAJO_NATS_URL names no server: write nats://host:port, several by comma")
    user = USERS[name]
    password, problem = text(user.password, environ)
    if problem:
        raise SettingsError(problem)
    told = load(Tls, environ)
    if not any(one.strip().startswith("tls://") for one in url.split(",")):
        if told != Tls():
            raise SettingsError(
                "TAJO_NATS_URL is not tls://, and a certificate is set: write tls://host:port"
            )
        return Login(user, password or "")
    try:
        context = ssl.create_default_context(cadata=told.ca or None)
        if told.certificate:
            context.load_cert_chain(told.certificate, told.key)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SettingsError(
            f"TAJO_NATS_CA, TAJO_NATS_CERTIFICATE or TAJO_NATS_KEY is no PEM of ours ({type(error).__name__})"
        ) from error
    TcpTransport.wait_closed = _wait_closed  # type: ignore[method-assign]  # nats-py makes its transports by itself
    return Login(user, password or "", context)


async def _wait_closed(transport: TcpTransport) -> None:
    """As nats-py's own, which waits for ever after a handshake that failed, and so would never try again.

    `connect_tls` hands the socket to another protocol first, so that the writer never hears that it is closed:
    https://github.com/nats-io/nats.py/blob/main/nats/src/nats/aio/transport.py
    """
    if transport._io_writer is not None:  # noqa: SLF001 - what nats-py's own awaits
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await transport._io_writer.wait_closed()  # noqa: SLF001


def new_password() -> str:
    """A password that the broker's configuration takes for nothing else: digits alone would be a number there."""
    return f"p{secrets.token_hex(24)}"


def _names_server(url: str) -> bool:
    """Whether there is a host, and no port that none can be; nats-py takes a URL without its scheme too."""
    try:
        parsed = urlsplit(url if "://" in url else f"nats://{url}")
        return bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        return False


def _without_user(url: str) -> str:
    parsed = urlsplit(url)
    return parsed._replace(netloc=parsed.netloc.rpartition("@")[2]).geturl()
