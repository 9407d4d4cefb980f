"""The broker over TLS: from the first byte, with its certificate checked, and ours where it wants one."""

import asyncio
import datetime as dt
import ipaddress
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import nats
import nats.errors
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shared import bus
from shared.bootstrap import bootstrap
from shared.login import login_as
from shared.message import MSG_ID, Message
from tajo import nats_server as embedded
from tajo.broker import DeniedError, connected

ROOT = Path(__file__).parent.parent.parent
RAW = Message("twilio.AC1.01.taskrouter.task.created", b"{}", {MSG_ID: "1"})


@dataclass
class Authority:
    """Who signs certificates, and where they are kept."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def made(cls, folder: Path, name: str) -> "Authority":
        folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        one = cls(folder, key, _signed(name, key, name, key, authority=True))
        (folder / "ca.pem").write_bytes(one.certificate.public_bytes(serialization.Encoding.PEM))
        return one

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
        paths = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        signed = _signed(name, key, issuer, self.key, authority=False)
        paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths


def _signed(name, key, issuer, issuer_key, *, authority: bool) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(issuer_key, hashes.SHA256())
    )  # fmt: skip


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority.made(tmp_path / "ours", "ours")


@pytest.fixture
def broker(tmp_path, ours, nats_users, unused_tcp_port_factory):
    """`broker(verify=True)`: its port, once it answers.  It has users, and its configuration is as docs/security.md has it."""
    running = []

    def start(*, verify: bool = False) -> int:
        certificate, key = ours.issue("broker")
        for name in ("nats.conf", "users.conf"):
            (tmp_path / name).write_text((ROOT / "deploy/nats" / name).read_text())
        wants = f'ca_file: "{ours.ca}"\n  verify: true' if verify else ""
        config = tmp_path / "tls.conf"
        config.write_text(
            f'include ./users.conf\ntls {{\n  cert_file: "{certificate}"\n  key_file: "{key}"\n'
            f"  handshake_first: auto\n  {wants}\n}}\n"
        )
        port = unused_tcp_port_factory()
        command = embedded.command(config=config, store=tmp_path / "store", host="127.0.0.1", port=port)
        running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        deadline = time.monotonic() + 20
        while not embedded.answers("127.0.0.1", port):
            assert running[-1].poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return port

    yield start
    for one in running:
        one.terminate()
        one.wait(20)


pytestmark = pytest.mark.nats_users


def told(**more: Path) -> dict[str, str]:
    return {**os.environ, **{name: str(path) for name, path in more.items()}}


async def test_services_and_command_line_work_over_tls(broker, ours):
    url = f"tls://127.0.0.1:{broker()}"
    environ = told(TAJO_NATS_CA_FILE=ours.ca)
    await bootstrap(url, login=login_as("tajo", url, environ))

    ingest = bus.connect(url, service="ingest", login=login_as("ingest", url, environ))
    await ingest.connect()
    await bus.Publisher(ingest).publish([RAW])
    await ingest.stop()

    async with connected(url, login_as("tajo", url, environ)) as connection:
        assert (await connection.jetstream().stream_info("TWILIO")).state.messages == 1


async def test_a_broker_that_goes_away_while_it_is_opened_is_tried_again(ours, nats_users, unused_tcp_port):
    """nats-py waits for ever after a handshake that was cut off."""
    tries = 0
    thrice = asyncio.Event()

    async def cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await reader.read(1)
        writer.close()
        if tries == 3:
            thrice.set()

    server = await asyncio.start_server(cut_off, "127.0.0.1", unused_tcp_port)
    url = f"tls://127.0.0.1:{unused_tcp_port}"
    ingest = bus.connect(
        url, service="ingest", login=login_as("ingest", url, told(TAJO_NATS_CA_FILE=ours.ca))
    )
    connecting = asyncio.create_task(ingest.connect())

    async with asyncio.timeout(30):
        await thrice.wait()

    connecting.cancel()
    await asyncio.wait([connecting])
    server.close()
    await server.wait_closed()


async def test_a_broker_that_wants_our_certificate_gets_it(broker, ours):
    url = f"tls://127.0.0.1:{broker(verify=True)}"
    certificate, key = ours.issue("tajo")

    with pytest.raises((nats.errors.Error, OSError)):
        async with connected(url, login_as("tajo", url, told(TAJO_NATS_CA_FILE=ours.ca))):
            pass
    environ = told(TAJO_NATS_CA_FILE=ours.ca, TAJO_NATS_CERTIFICATE=certificate, TAJO_NATS_KEY=key)
    async with connected(url, login_as("tajo", url, environ)) as connection:
        assert await connection.jetstream().account_info()


async def test_a_broker_whose_certificate_somebody_else_signed_gets_no_password(broker, tmp_path):
    url = f"tls://127.0.0.1:{broker()}"
    other = Authority.made(tmp_path / "other", "other")

    with pytest.raises(DeniedError, match="certificate verify failed") as told_so:
        async with connected(url, login_as("tajo", url, told(TAJO_NATS_CA_FILE=other.ca))):
            pass

    assert "TAJO_NATS_CA" in told_so.value.remedy


async def test_a_server_that_says_it_knows_no_tls_gets_nothing_in_the_clear(ours, nats_users):
    """Who stands in between may say so; nats-py then goes on without, and sends the password."""
    heard = bytearray()

    async def downgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b'INFO {"server_id":"X","version":"2.15.1","headers":true,"auth_required":true,"max_payload":1}\r\n'
        )
        heard.extend(await reader.read(65536))
        writer.close()

    server = await asyncio.start_server(downgrade, "127.0.0.1", 0)
    url = f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    login = login_as("tajo", url, told(TAJO_NATS_CA_FILE=ours.ca))
    with pytest.raises((nats.errors.Error, OSError)):
        async with asyncio.timeout(20), connected(url, login):
            pass
    server.close()
    await server.wait_closed()

    assert heard[:1] == b"\x16"  # a TLS handshake
    assert login.password.encode() not in heard
    assert b"CONNECT" not in heard
