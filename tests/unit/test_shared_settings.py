"""Settings: read from the environment or from files, every problem named at once and no value repeated."""

from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from shared.settings import PORT, ApiKey, AuthTokens, SettingsError, env, load, make_folder, secure_url


class Settings(msgspec.Struct):
    token: Annotated[str, env("TOKEN", "the token that signs")]
    port: Annotated[int, PORT, env("PORT", "where we listen")] = 8080
    folder: Annotated[Path, env("FOLDER", "where we keep things")] = Path("data")
    plain: Annotated[bool, env("PLAIN", "1 allows it")] = False


def test_values_come_from_the_environment_and_the_rest_from_the_defaults():
    settings = load(Settings, {"TOKEN": "t", "PORT": "9", "PLAIN": "1", "FOLDER": "/x"})

    assert settings == Settings(token="t", port=9, folder=Path("/x"), plain=True)
    assert load(Settings, {"TOKEN": "t"}) == Settings(token="t")


def test_a_secret_may_stand_in_a_file(tmp_path):
    (tmp_path / "token").write_text("from a file\n")

    assert load(Settings, {"TOKEN_FILE": str(tmp_path / "token")}).token == "from a file"


def test_every_problem_is_named_and_no_value_is_repeated(tmp_path):
    with pytest.raises(SettingsError) as caught:
        load(
            Settings,
            {"PORT": "s3cret", "FOLDER": "a", "FOLDER_FILE": "b", "PLAIN_FILE": str(tmp_path / "none")},
        )

    assert str(caught.value).splitlines() == [
        "TOKEN is not set: the token that signs",
        "PORT has a value of the wrong kind: where we listen (at least 1, at most 65535)",
        "FOLDER and FOLDER_FILE are both set: keep one",
        "PLAIN_FILE cannot be read: No such file or directory",
    ]


def test_a_file_that_is_no_text_is_a_problem_like_the_others(tmp_path):
    (tmp_path / "token").write_bytes(b"\xff\xfe")

    with pytest.raises(SettingsError, match=r"^TOKEN_FILE is no text in UTF-8$"):
        load(Settings, {"TOKEN_FILE": str(tmp_path / "token")})


def test_a_port_no_machine_has_is_none():
    with pytest.raises(SettingsError, match="at most 65535"):
        load(Settings, {"TOKEN": "t", "PORT": "70000"})


def test_an_empty_variable_is_an_absent_one():
    with pytest.raises(SettingsError, match="TOKEN is not set"):
        load(Settings, {"TOKEN": ""})


class Secrets(msgspec.Struct):
    api_key: ApiKey = ""
    auth_tokens: AuthTokens = ""


@pytest.mark.parametrize("value", ["clé", "two\nlines", "one\n", " one", "\udcff", "\x7f"])
def test_what_no_header_can_hold_is_refused_without_being_shown(value):
    with pytest.raises(SettingsError) as caught:
        load(Secrets, {"TAJO_API_KEY": value})

    assert "TAJO_API_KEY has a value of the wrong kind" in str(caught.value)
    assert str(caught.value).endswith("(printable ASCII, no space or line break around it)")
    assert value not in str(caught.value)
    assert load(Secrets, {"TAJO_API_KEY": "a key, of any signs ~!"}).api_key


@pytest.mark.parametrize("value", [",", " , ", "jeton é", "one,\ntwo"])
def test_tokens_are_one_at_least(value):
    with pytest.raises(SettingsError, match=r"TWILIO_AUTH_TOKEN .*\(at least one, in printable ASCII\)$"):
        load(Secrets, {"TWILIO_AUTH_TOKEN": value})
    for usable in ("old,", ",new", "old, new", "-"):
        assert load(Secrets, {"TWILIO_AUTH_TOKEN": usable}).auth_tokens == usable


def test_a_url_that_names_no_host_is_a_mistake():
    for url in ("https://[::1", "https://", "brevo", "https://h:port"):
        with pytest.raises(SettingsError, match=r"^URL is no URL: write https://host$"):
            secure_url("URL", url, allow_http=True)
    assert secure_url("URL", "https://[::1]:8443/v3/", allow_http=False) == "https://[::1]:8443/v3"


def test_a_folder_that_cannot_be_made_or_written_is_named_with_what_to_set(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mapper").touch()

    make_folder(tmp_path / "new", "mapper")
    make_folder(tmp_path / "new", "mapper")

    assert (tmp_path / "new/mapper").is_dir()
    for data_dir in (tmp_path / "data", tmp_path / "data/mapper", Path("/dev/null/x"), Path("/proc/nope")):
        with pytest.raises(SettingsError, match=r"/mapper cannot be .*: set TAJO_DATA_DIR to a folder"):
            make_folder(data_dir, "mapper")
