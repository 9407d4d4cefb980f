"""Another Brevo account that is to be filled: what the environment says of its name."""

import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from brevo_sink.settings import Settings as BrevoSettings
from shared.settings import SettingsError, load, secure_url, text

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")


class Target(Struct, frozen=True):
    """Another account, and where its rebuild stands."""

    name: str
    folder: Path
    brevo: BrevoSettings
    environment: Mapping[str, str]  # of its sink: ours, with that account's key for ours

    def __repr__(self) -> str:
        """Without a key."""
        return f"Target({self.name})"


def target(name: str, environ: Mapping[str, str], data_dir: Path) -> Target:
    """What the environment says of this name.  Raises SettingsError."""
    if not _NAME.fullmatch(name):
        raise SettingsError("a name is lower-case letters, digits, - and _, and begins with a letter")
    prefix = f"TAJO_INTO_{name.upper().replace('-', '_')}"
    key, problem = text(f"{prefix}_BREVO_API_KEY", environ)
    if problem or not key:
        raise SettingsError(
            problem
            or f"{prefix}_BREVO_API_KEY is not set: the API key of the account that shall be filled; or {prefix}_BREVO_API_KEY_FILE"
        )
    url, problem = text(f"{prefix}_BREVO_URL", environ)
    if problem:
        raise SettingsError(problem)
    folder = data_dir / "into" / name
    told = {one: value for one, value in environ.items() if not one.startswith("TAJO_INTO_")}
    told |= {"BREVO_API_KEY": key, "BREVO_API_KEY_FILE": "", **({"TAJO_BREVO_URL": url} if url else {})}
    told |= {"TAJO_CONFIG": str(folder / "mapping.yaml"), "TAJO_BREVO_IMPORT_NEW": "1"}
    settings = load(BrevoSettings, told)
    secure_url(f"{prefix}_BREVO_URL", settings.brevo_url, allow_http=settings.allow_http)
    return Target(name, folder, settings, told)
