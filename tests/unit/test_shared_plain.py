"""Values as Brevo takes them."""

import msgspec
from hypothesis import given
from hypothesis import strategies as some

from brevo_sink.request import event
from mapper.step import told
from shared.command import EventTrack
from shared.plain import plain, whole


@given(some.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_told_with_all_its_digits_and_fits_64_bits(number):
    assert float(plain(number)) == whole(number) == number
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(whole(number))) == number


@given(some.floats(allow_nan=False, allow_infinity=False))
def test_an_event_says_a_number_the_same_whether_mapper_or_sink_made_it_plain(number):
    track = EventTrack(
        id="1", ext_id="ana", name="RESOLVED", time="2026-11-20T09:00:00Z", properties={"total": number}
    )

    assert event(track, "ana")["event_properties"]["total"] == told(number)
    assert float(told(number)) == number


def test_a_price_of_seven_digits_is_not_rounded():
    assert (plain(12345.67), plain(5.0), told(1234567.5)) == ("12345.67", 5, "1234567.5")
