"""Users of the broker: what is generated is what is shipped, and a login says what it needs."""

import re
import ssl
from pathlib import Path

import pytest
from typer.testing import CliRunner

from shared.login import Login, login_as, new_password
from shared.permissions import USERS, server_configuration
from shared.settings import SettingsError
from tajo.main import app

ROOT = Path(__file__).parent.parent.parent
URL = "nats://127.0.0.1:4222"


def test_the_broker_is_shipped_with_the_users_of_this_version():
    shipped = (ROOT / "deploy/nats/users.conf").read_text()

    assert shipped == server_configuration(), "run: tajo nats-config > deploy/nats/users.conf"
    assert CliRunner().invoke(app, ["nats-config"]).stdout == shipped


def test_each_user_has_an_inbox_and_a_password_of_its_own():
    for kind in ("inbox", "password"):
        assert len({getattr(one, kind) for one in USERS.values()}) == len(USERS)
    assert USERS["tajo"].password == "TAJO_NATS_PASSWORD"
    assert USERS["brevo-sink"].password == "TAJO_BREVO_SINK_NATS_PASSWORD"


def test_only_whoever_operates_has_a_wildcard_over_everything_of_jetstream():
    broad = re.compile(r"\$(JS|KV|O)(\.API)?(\.STREAM|\.CONSUMER)?\.>")

    assert [one.name for one in USERS.values() if any(map(broad.fullmatch, one.publish))] == ["tajo"]


def test_new_passwords_are_told_for_all_and_each_is_another():
    lines = CliRunner().invoke(app, ["nats-config", "--passwords"]).stdout.splitlines()

    passwords = dict(line.split("=") for line in lines)
    assert passwords.keys() == {one.password for one in USERS.values()}
    assert len(set(passwords.values())) == len(USERS)


def test_no_password_is_shown(tmp_path):
    password = new_password()
    (tmp_path / "password").write_text(f"{password}\n")

    from_file = login_as("ingest", URL, {"TAJO_INGEST_NATS_PASSWORD_FILE": str(tmp_path / "password")})

    assert from_file == login_as("ingest", URL, {"TAJO_INGEST_NATS_PASSWORD": password})
    assert from_file.options() == {"inbox_prefix": "_INBOX_ingest", "user": "ingest", "password": password}
    assert password not in repr(from_file)


def test_without_a_password_nobody_is_named():
    assert login_as("ingest", URL, {}).options() == {"inbox_prefix": "_INBOX_ingest"}


def test_several_servers_are_told_by_comma_and_our_user_comes_before_the_urls():
    told = "nats://somebody:else@n1:4222, nats://n2:4222"

    assert Login().servers(told) == ["nats://somebody:else@n1:4222", "nats://n2:4222"]
    assert Login(USERS["ingest"], "p").servers(told) == ["nats://n1:4222", "nats://n2:4222"]


def test_a_url_that_names_no_server_is_a_mistake():
    for url in ("nats://[::1", "nats://h:port", "nats://h:99999", "nats://", "", "nats://n1:4222,"):
        with pytest.raises(SettingsError, match=r"^TAJO_NATS_URL names no server: write nats://host:port"):
            login_as("mapper", url, {})
    for url in ("nats://[::1]:4222", "localhost:4222", "n1", "nats://user:pass@n1, tls://n2"):
        login_as("mapper", url, {})


def test_tls_is_what_the_url_says_and_a_certificate_without_it_is_a_mistake():
    assert login_as("mapper", "tls://n1:4222", {}).options()["tls_handshake_first"] is True
    assert isinstance(login_as("mapper", "tls://n1:4222", {}).tls, ssl.SSLContext)
    with pytest.raises(SettingsError, match="TAJO_NATS_URL is not tls://"):
        login_as("mapper", URL, {"TAJO_NATS_CA": "some PEM"})
    with pytest.raises(SettingsError, match="no PEM of ours"):
        login_as("mapper", "tls://n1:4222", {"TAJO_NATS_CA": "some PEM"})
