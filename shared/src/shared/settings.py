"""Settings from the environment: every missing or bad one is named at once, none is read at import."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

S = TypeVar("S", bound=msgspec.Struct)


class SettingsError(Exception):
    """One line a problem, each saying what to do; no value is repeated."""


def env(name: str, doc: str) -> Meta:
    """The environment variable a field comes from, and what it says in docs/configuration.md."""
    return Meta(extra={"env": name}, description=doc)


PORT = Meta(ge=1, le=65535)
NatsUrl = Annotated[str, env("TAJO_NATS_URL", "NATS server, nats://host:port")]
DataDir = Annotated[Path, env("TAJO_DATA_DIR", "where a service keeps its SQLite files")]
ConfigPath = Annotated[Path, env("TAJO_CONFIG", "the connector file, YAML")]
PRINTABLE = Meta(
    pattern=r"\A[!-~]([ -~]*[!-~])?\Z", title="printable ASCII, no space or line break around it"
)
"""What an HTTP header can hold."""

ApiKey = Annotated[
    str,
    PRINTABLE,
    env("TAJO_API_KEY", "our own key: header X-Tajo-Key on /webhooks/survey and task-complete"),
]
AuthTokens = Annotated[
    str,
    Meta(pattern=r"\A[ -~]*[!-+\--~][ -~]*\Z", title="at least one, in printable ASCII"),
    env("TWILIO_AUTH_TOKEN", "Twilio's auth token; several, by comma, while one is rotated"),
]
AllowHttp = Annotated[bool, env("TAJO_ALLOW_HTTP", "1 allows plain http beyond loopback")]


def load(settings: type[S], environ: Mapping[str, str]) -> S:
    """Build `settings` from the environment.

    Each field is annotated with `env(...)`.  NAME_FILE names a file that holds the value (Docker
    secrets); an empty variable is an absent one.  Raises SettingsError naming every problem.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    fields = {field.name: field for field in msgspec.structs.fields(settings)}
    for name, hint in get_type_hints(settings, include_extras=True).items():
        variable = variable_of(hint)
        value, problem = text(variable, environ)
        if problem:
            problems.append(problem)
        elif value is not None:
            try:
                values[name] = msgspec.convert(value, hint, strict=False, dec_hook=_path)
            except msgspec.ValidationError:
                problems.append(
                    f"{variable} has a value of the wrong kind: {_description(hint)}{_bounds(hint)}"
                )
        elif fields[name].required:
            problems.append(f"{variable} is not set: {_description(hint)}")
    if problems:
        raise SettingsError("\n".join(problems))
    return settings(**values)


def secure_url(variable: str, url: str, *, allow_http: bool) -> str:
    """The URL, if secrets may be sent there: https, or this machine.  Raises SettingsError."""
    try:
        parsed = urlsplit(url)
        named = bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        named = False
    if not named:
        raise SettingsError(f"{variable} is no URL: write https://host")
    if parsed.scheme == "https" or allow_http or parsed.hostname in ("127.0.0.1", "localhost", "::1"):
        return url.rstrip("/")
    raise SettingsError(f"{variable} is not https: set TAJO_ALLOW_HTTP=1 if plain http is meant")


def make_folder(data_dir: Path, service: str) -> None:
    """Make the service's folder in TAJO_DATA_DIR, if it is not there.  Raises SettingsError where it cannot be written."""
    folder = data_dir / service
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise SettingsError(
            f"{folder} cannot be made or written ({error.strerror}): set TAJO_DATA_DIR to a folder that may be"
        ) from error


def variable_of(hint: Any) -> str:
    """The environment variable named by an annotation made with `env`."""
    for meta in hint.__metadata__:
        if meta.extra and "env" in meta.extra:
            return str(meta.extra["env"])
    raise TypeError(f"{hint} is not annotated with env(...)")


def _description(hint: Any) -> str:
    return next((str(meta.description) for meta in hint.__metadata__ if meta.description), "")


def _bounds(hint: Any) -> str:
    """What a number or text may be, for a person; an empty text where it may be any."""
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    said = [
        f"{word} {bound:g}"
        for meta in hint.__metadata__
        for name, word in words.items()
        if (bound := getattr(meta, name)) is not None
    ] + [meta.title for meta in hint.__metadata__ if meta.title]
    return f" ({', '.join(said)})" if said else ""


def text(variable: str, environ: Mapping[str, str]) -> tuple[str | None, str]:
    """The value of NAME or of the file NAME_FILE names, or None; and what is wrong, or nothing."""
    direct, file = environ.get(variable), environ.get(f"{variable}_FILE")
    if direct and file:
        return None, f"{variable} and {variable}_FILE are both set: keep one"
    if not file:
        return direct or None, ""
    try:
        return Path(file).read_text(encoding="utf-8").strip() or None, ""
    except OSError as error:
        return None, f"{variable}_FILE cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        return None, f"{variable}_FILE is no text in UTF-8"


def _path(kind: type, value: Any) -> Any:
    if kind is not Path:
        raise TypeError(f"settings hold text, numbers, booleans and paths, not {kind}")
    return Path(value)
