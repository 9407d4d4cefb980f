"""The credential store: what `tajo connectors install` was told, encrypted at rest.

One file, TAJO_CREDENTIALS, holds for each connector which environment variable has which value; the services read it
as a layer below the environment.  The key is in TAJO_MASTER_KEY, else in a file of its own beside the folder the store
is in.  A write is a new file that takes the old one's place when it is on disk, so a crash leaves the one or the other.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from msgspec import Struct

from shared.settings import DataDir, SettingsError, env, load, text

NAMES = (
    "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_API_KEY_SID", "TWILIO_API_KEY_SECRET", "TAJO_FLEX_FLOW_SID",
    "BREVO_API_KEY", "TAJO_API_KEY",
)  # fmt: skip
"""What may be stored: the environment variables that are secret, or say whose the secrets are."""

BYTES_MAX = 64 * 1024  # of the store; seven values of a connector are 1 KB
OURS_ALONE = 0o077  # the permission bits of others that a key file must not have


class Place(Struct, frozen=True):
    """Where store and key are; read from the environment by shared.settings.load."""

    data_dir: DataDir = Path(".tajo/data")
    credentials: Annotated[
        Path | None, env("TAJO_CREDENTIALS", "the credential store; else credentials in TAJO_DATA_DIR")
    ] = None
    master_keys: Annotated[
        str,
        env("TAJO_MASTER_KEY", "the store's key; several, by comma, while it is rotated, the new one first"),
    ] = ""

    @property
    def store(self) -> Path:
        """The store."""
        return self.credentials or self.data_dir / "credentials"

    @property
    def key(self) -> Path:
        """The key, where TAJO_MASTER_KEY is not set: not in the store's folder, so that no copy of that has both."""
        return self.store.absolute().parent.parent / "master.key"


class CredentialsError(SettingsError):
    """The store or its key cannot be used; the message says what to do and repeats no value."""


class Installed(Struct, frozen=True):
    """What is stored of one connector."""

    since: str  # RFC 3339
    values: dict[str, str]  # environment variable → value

    def __repr__(self) -> str:
        """Without a value."""
        return f"Installed({self.since}, {', '.join(self.values)})"


class Store:
    """The store.  Reading one that does not exist makes no file and no key."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def read(self) -> dict[str, Installed]:
        """What is stored, by connector.  Raises CredentialsError."""
        sealed = self._sealed()
        return {} if sealed is None else self._opened(sealed, self._keys(make=False))

    def put(self, connector: str, values: Mapping[str, str], *, now: str) -> bool:
        """Store a connector's values in place of what it had; whether that changed anything.  Raises CredentialsError."""
        _make(self._place.store.parent)
        with self._alone():
            sealed = self._sealed()
            keys = self._keys(make=sealed is None)
            stored = {} if sealed is None else self._opened(sealed, keys)
            before = stored.get(connector)
            changed = before is None or before.values != values
            if changed:
                stored[connector] = Installed(now, dict(values))
            if (
                changed or sealed is None or not _opens(keys[0], sealed)
            ):  # a new key takes over with the next write
                self._write(MultiFernet(keys).encrypt(msgspec.json.encode(stored)))
            return changed

    def remove(self, connector: str) -> bool:
        """Forget a connector; whether there was one.  Raises CredentialsError."""
        if self._sealed() is None:
            return False
        with self._alone():
            keys = self._keys(make=False)
            stored = self.read()
            found = stored.pop(connector, None) is not None
            if found and stored:
                self._write(MultiFernet(keys).encrypt(msgspec.json.encode(stored)))
            elif found:
                self._place.store.unlink()
            return found

    def _sealed(self) -> bytes | None:
        try:
            with self._place.store.open("rb") as file:
                return file.read(BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CredentialsError(
                f"{self._place.store} cannot be read ({error.strerror}): is TAJO_DATA_DIR right, or TAJO_CREDENTIALS?"
            ) from error

    def _opened(self, sealed: bytes, keys: list[Fernet]) -> dict[str, Installed]:
        try:
            return msgspec.json.decode(MultiFernet(keys).decrypt(sealed), type=dict[str, Installed])
        except (InvalidToken, msgspec.MsgspecError) as error:
            where = "TAJO_MASTER_KEY" if self._place.master_keys else str(self._place.key)
            raise CredentialsError(
                f"{self._place.store} does not open with the key in {where}: the key is another's or the file is damaged; "
                "set the right key, or restore both from a backup, or delete the file and install again"
            ) from error

    def _keys(self, *, make: bool) -> list[Fernet]:
        """The keys, the one to write with first."""
        given = [key.strip() for key in self._place.master_keys.split(",") if key.strip()]
        where = "TAJO_MASTER_KEY" if given else str(self._place.key)
        try:
            return [Fernet(key) for key in given or [self._key_of_file(make=make)]]
        except ValueError as error:
            raise CredentialsError(
                f"{where} is no key: it is 32 random bytes in base64, as `openssl rand -base64 32` makes them"
            ) from error

    def _key_of_file(self, *, make: bool) -> str:
        path = self._place.key
        if make and not path.exists():
            self._make_key(path)
        try:
            with path.open(encoding="ascii") as file:
                if os.fstat(file.fileno()).st_mode & OURS_ALONE:
                    raise CredentialsError(f"{path} may be read by others: chmod 600 {path}")
                return file.read(1024).strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise CredentialsError(
                f"{self._place.store} is encrypted, and its key {path} cannot be read ({why}): set TAJO_MASTER_KEY"
            ) from error

    def _make_key(self, path: Path) -> None:
        """Make a key, all of it or none: whoever comes first, both use that one."""
        _make(path.parent)
        new = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            _on_disk(new, Fernet.generate_key() + b"\n")
            with suppress(FileExistsError):
                os.link(new, path)
            new.unlink()
            _folder_on_disk(path.parent)
        except OSError as error:
            raise CredentialsError(
                f"no key, and none can be made at {path} ({error.strerror}): set TAJO_MASTER_KEY"
            ) from error

    def _write(self, sealed: bytes) -> None:
        """The order: the new file is on disk, it takes the old one's place, the folder is on disk."""
        store = self._place.store
        if len(sealed) > BYTES_MAX:
            raise CredentialsError(f"more than {BYTES_MAX} bytes to store: is a NAME_FILE the right file?")
        new = store.with_name(f"{store.name}.new")
        try:
            _on_disk(new, sealed)
            new.replace(store)
            _folder_on_disk(store.parent)
        except OSError as error:
            raise CredentialsError(f"{store} cannot be written: {error.strerror}") from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process writes at a time."""
        path = self._place.store.with_name(f"{self._place.store.name}.lock")
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CredentialsError(f"{self._place.store} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def store_of(environ: Mapping[str, str]) -> Store:
    """The store that an environment names.  Raises SettingsError."""
    return Store(load(Place, environ))


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment, and beneath it what is stored.  Nothing of it reaches os.environ.  Raises SettingsError."""
    return layered(environ, *store_of(environ).read().values())


def layered(environ: Mapping[str, str], *stored: Installed) -> dict[str, str]:
    """The environment wins, the store fills what is unset.  Pure but for NAME_FILE.

    Twilio's secrets are stored for one account: where the environment names another they fill nothing.  So with a key's
    two halves.
    """
    filled = dict(environ)
    for one in stored:
        for name in NAMES:
            if (
                name in one.values
                and not is_set(name, environ)
                and not _of_another(name, environ, one.values)
            ):
                filled[name] = one.values[name]
    return filled


_BELONGS_TO = {
    "TWILIO_AUTH_TOKEN": ("TWILIO_ACCOUNT_SID",),
    "TWILIO_API_KEY_SID": ("TWILIO_ACCOUNT_SID", "TWILIO_API_KEY_SECRET"),
    "TWILIO_API_KEY_SECRET": ("TWILIO_ACCOUNT_SID", "TWILIO_API_KEY_SID"),
    "TAJO_FLEX_FLOW_SID": ("TWILIO_ACCOUNT_SID",),
}


def _of_another(name: str, environ: Mapping[str, str], stored: Mapping[str, str]) -> bool:
    """Whether the environment names another account, or another half of the same key, than what is stored goes with."""
    said = ((text(other, environ)[0], stored.get(other)) for other in _BELONGS_TO.get(name, ()))
    return any(ours is not None and ours != theirs for ours, theirs in said)


def is_set(name: str, environ: Mapping[str, str]) -> bool:
    """Whether the environment says it, directly or by a file."""
    return bool(environ.get(name) or environ.get(f"{name}_FILE"))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CredentialsError(f"{folder} cannot be made: {error.strerror}") from error


def _opens(key: Fernet, sealed: bytes) -> bool:
    try:
        key.decrypt(sealed)
    except InvalidToken:
        return False
    return True


def _on_disk(path: Path, content: bytes) -> None:
    """Write a file that nobody else may read, and return when it is on disk."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(opened, "wb") as file:
        os.fchmod(opened, 0o600)
        file.write(content)
        file.flush()
        os.fsync(opened)


def _folder_on_disk(folder: Path) -> None:
    """Its entries: a file that took another's place has done so on disk."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
