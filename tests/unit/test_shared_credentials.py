"""The credential store: encrypted, whole or not at all, and a layer beneath the environment."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as some

from poller.settings import Settings
from shared.connector_file import parse
from shared.credentials import NAMES, CredentialsError, Installed, environment, layered, store_of

NOW, LATER = "2026-11-20T10:00:00.000Z", "2026-11-21T10:00:00.000Z"
SECRETS = {"TWILIO_ACCOUNT_SID": "AC" + "1" * 32, "TWILIO_AUTH_TOKEN": "t0ken-of-twilio", "BREVO_API_KEY": "xkeysib-s3cret"}  # fmt: skip
VALUES = some.dictionaries(some.sampled_from(NAMES), some.text(min_size=1, max_size=40))


@pytest.fixture
def environ(tmp_path):
    return {"TAJO_DATA_DIR": str(tmp_path / "tajo/data")}


def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_stored_is_read_again_and_stands_nowhere_in_clear(environ, tmp_path):
    assert store_of(environ).put("twilio-flex", SECRETS, now=NOW)

    assert store_of(environ).read() == {"twilio-flex": Installed(NOW, SECRETS)}
    held = files(tmp_path)
    assert held.keys() == {"tajo/data/credentials", "tajo/data/credentials.lock", "tajo/master.key"}
    for secret in SECRETS.values():
        assert not any(secret.encode() in content for content in held.values())
    for name in ("tajo/data/credentials", "tajo/master.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_reading_a_store_that_is_not_there_makes_neither_store_nor_key(environ, tmp_path):
    assert environment(environ) == environ
    assert not store_of(environ).remove("twilio-flex")
    assert files(tmp_path) == {}


def test_storing_the_same_again_changes_nothing(environ, tmp_path):
    store_of(environ).put("twilio-flex", SECRETS, now=NOW)
    before = files(tmp_path)

    assert not store_of(environ).put("twilio-flex", SECRETS, now=LATER)
    assert files(tmp_path) == before


def test_what_is_removed_is_gone(environ):
    store_of(environ).put("twilio-flex", SECRETS, now=NOW)
    store_of(environ).put("another", SECRETS, now=NOW)

    assert store_of(environ).remove("twilio-flex")
    assert store_of(environ).read().keys() == {"another"}
    assert store_of(environ).remove("another")
    assert store_of(environ).read() == {}


def test_a_key_is_rotated_by_setting_the_new_one_before_the_old(environ):
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    store_of({**environ, "TAJO_MASTER_KEY": old}).put("twilio-flex", SECRETS, now=NOW)

    assert store_of({**environ, "TAJO_MASTER_KEY": f"{new}, {old}"}).read()["twilio-flex"].values == SECRETS
    assert not store_of({**environ, "TAJO_MASTER_KEY": f"{new},{old}"}).put("twilio-flex", SECRETS, now=LATER)

    assert store_of({**environ, "TAJO_MASTER_KEY": new}).read() == {"twilio-flex": Installed(NOW, SECRETS)}
    with pytest.raises(CredentialsError):
        store_of({**environ, "TAJO_MASTER_KEY": old}).read()


def test_the_key_may_stand_in_a_file_of_the_orchestrators(environ, tmp_path):
    (tmp_path / "secret").write_bytes(Fernet.generate_key() + b"\n")
    mounted = {**environ, "TAJO_MASTER_KEY_FILE": str(tmp_path / "secret")}

    store_of(mounted).put("twilio-flex", SECRETS, now=NOW)

    assert environment(mounted)["BREVO_API_KEY"] == SECRETS["BREVO_API_KEY"]


def wrong_key(environ, _folder):
    environ["TAJO_MASTER_KEY"] = Fernet.generate_key().decode()


def no_key_at_all(environ, _folder):
    environ["TAJO_MASTER_KEY"] = "s3cret-but-no-key"


def key_gone(_environ, folder):
    (folder / "master.key").unlink()


def key_open_to_others(_environ, folder):
    (folder / "master.key").chmod(0o640)


def damaged(_environ, folder):
    content = (folder / "data/credentials").read_bytes()
    other = b"B" if content[40:41] == b"A" else b"A"
    (folder / "data/credentials").write_bytes(content[:40] + other + content[41:])


def cut_short(_environ, folder):
    content = (folder / "data/credentials").read_bytes()
    (folder / "data/credentials").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (wrong_key, "does not open with the key in TAJO_MASTER_KEY"),
        (no_key_at_all, "TAJO_MASTER_KEY is no key: it is 32 random bytes in base64"),
        (key_gone, "master.key cannot be read (No such file or directory): set TAJO_MASTER_KEY"),
        (key_open_to_others, "master.key may be read by others: chmod 600"),
        (damaged, "the key is another's or the file is damaged"),
        (cut_short, "the key is another's or the file is damaged"),
    ],
)
def test_a_store_that_cannot_be_opened_says_why_and_nothing_else(environ, tmp_path, spoil, said):
    store_of(environ).put("twilio-flex", SECRETS, now=NOW)
    spoil(environ, tmp_path / "tajo")
    before = files(tmp_path)

    for use in (environment, lambda given: store_of(given).put("twilio-flex", SECRETS, now=LATER)):
        with pytest.raises(CredentialsError) as caught:
            use(environ)
        assert said in str(caught.value)
        assert "s3cret" not in str(caught.value)
    assert files(tmp_path) == before


def test_no_value_is_in_what_is_printed_of_it():
    assert repr(Installed(NOW, SECRETS)) == f"Installed({NOW}, {', '.join(SECRETS)})"


@given(VALUES, VALUES)
def test_the_environment_wins_and_the_store_fills_what_is_unset_and_goes_with_it(said, stored):
    key = ("TWILIO_API_KEY_SID", "TWILIO_API_KEY_SECRET")
    filled = layered({**said, "OTHER": "x"}, Installed(NOW, stored))

    assert filled.items() >= {**said, "OTHER": "x"}.items()
    for name, value in filled.items() - {**said, "OTHER": "x"}.items():
        assert stored[name] == value
        goes_with = ("TWILIO_ACCOUNT_SID", *key) if name in key else ("TWILIO_ACCOUNT_SID",)
        if name not in ("BREVO_API_KEY", "TAJO_API_KEY"):
            assert all(said.get(other, stored.get(other)) == stored.get(other) for other in goes_with)
    if not said.keys() & {"TWILIO_ACCOUNT_SID", *key}:
        assert filled == {**stored, **said, "OTHER": "x"}


def test_half_a_key_is_never_filled_with_half_of_another():
    stored = Installed(NOW, {**SECRETS, "TWILIO_API_KEY_SID": "SK1", "TWILIO_API_KEY_SECRET": "of SK1"})

    assert "TWILIO_API_KEY_SECRET" not in layered({"TWILIO_API_KEY_SID": "SK2"}, stored)
    assert layered({"TWILIO_API_KEY_SID": "SK1"}, stored)["TWILIO_API_KEY_SECRET"] == "of SK1"


def test_what_is_too_large_to_be_a_secret_is_refused_and_what_was_stored_stays(environ):
    store_of(environ).put("twilio-flex", SECRETS, now=NOW)

    with pytest.raises(CredentialsError, match="is a NAME_FILE the right file"):
        store_of(environ).put("twilio-flex", {"TWILIO_AUTH_TOKEN": "x" * 70_000}, now=LATER)

    assert store_of(environ).read() == {"twilio-flex": Installed(NOW, SECRETS)}


def test_an_empty_variable_is_filled_and_one_in_a_file_is_not(tmp_path):
    (tmp_path / "key").write_text("from a file")
    environ = {"TWILIO_AUTH_TOKEN": "", "BREVO_API_KEY_FILE": str(tmp_path / "key")}

    filled = layered(environ, Installed(NOW, SECRETS))

    assert filled["TWILIO_AUTH_TOKEN"] == SECRETS["TWILIO_AUTH_TOKEN"]
    assert "BREVO_API_KEY" not in filled


def test_secrets_of_one_account_are_never_used_for_another():
    environ = {"TWILIO_ACCOUNT_SID": "AC" + "2" * 32}

    assert layered(environ, Installed(NOW, SECRETS)) == {**environ, "BREVO_API_KEY": SECRETS["BREVO_API_KEY"]}


def test_the_environment_names_account_and_flow_before_the_connector_file_does():
    config = parse("connectors: {twilio_flex: {account_sid: ACfile, flex_flow_sid: FOfile}}")

    named = Settings(account_sid="ACstore", flex_flow_sid="FOstore").over(config).flex

    assert (named.account_sid, named.flex_flow_sid) == ("ACstore", "FOstore")
    assert Settings().over(config).flex == config.flex


WRITER = """
import os, signal, sys
from shared.credentials import store_of
left = int(sys.argv[1])
def hook(event, _arguments):
    global left
    if event in ("open", "os.rename", "os.link", "os.remove", "os.chmod", "os.mkdir"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
store_of(os.environ).put("twilio-flex", {"BREVO_API_KEY": sys.argv[2]}, now="2026-11-20T10:00:00.000Z")
"""


@pytest.mark.parametrize("before", [{}, {"BREVO_API_KEY": "old"}], ids=["the first write", "a later write"])
def test_killed_before_any_of_its_steps_it_leaves_what_was_there_or_what_it_wrote(environ, tmp_path, before):
    found, kills, ended = [], 0, None
    while ended != 0:
        shutil.rmtree(tmp_path / "tajo", ignore_errors=True)
        if before:
            store_of(environ).put("twilio-flex", before, now=NOW)
        kills += 1
        ended = subprocess.run(
            [sys.executable, "-c", WRITER, str(kills), "new"], env={**os.environ, **environ}, check=False
        ).returncode
        assert ended in (0, -signal.SIGKILL)
        stored = store_of(environ).read().get("twilio-flex", Installed("", {})).values
        assert stored in (before, {"BREVO_API_KEY": "new"})
        found.append(stored)

        assert store_of(environ).put("twilio-flex", SECRETS, now=NOW)  # what is left stands in nobody's way
        assert store_of(environ).read()["twilio-flex"].values == SECRETS
    assert kills > 5
    assert before in found[:3]
    assert found[-1] == {"BREVO_API_KEY": "new"}


def test_two_that_store_at_the_same_time_both_do_and_with_one_key(environ):
    writers = [
        threading.Thread(target=lambda name=f"c{n}": store_of(environ).put(name, SECRETS, now=NOW))
        for n in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert store_of(environ).read().keys() == {f"c{n}" for n in range(8)}
