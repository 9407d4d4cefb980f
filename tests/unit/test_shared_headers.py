"""Headers are read as nats-py reads them."""

from hypothesis import given
from hypothesis import strategies as some
from nats.aio.client import Client

from shared.headers import parse

piece = some.sampled_from([b"\r\n", b":", b": ", b" ", b"\t", b"\n", b"\r", b"\xc2\xa0", b"\xc3", b"\x1c"])


@given(some.lists(piece | some.binary(max_size=8) | some.sampled_from([b"ce-id", b"Nats-Msg-Id"])))
def test_any_block_is_read_as_nats_py_reads_it(pieces):
    raw = b"".join(pieces)

    assert parse(raw) == Client._parse_header_lines(raw)


def test_what_is_no_name_is_passed_over_and_a_value_keeps_its_colons():
    assert parse(b"ce-time: 10:14\r\nno name: 1\r\n\xc3\xbc: 2\r\nneither\r\nempty:\r\n\r\n") == {
        "ce-time": "10:14", "empty": "",
    }  # fmt: skip
