"""What is remembered of what was read."""

import tracemalloc
from urllib.parse import urlencode

from mapper.heard import forget_texts, read
from mapper.said import Reading
from shared.event import RawEvent

MB = 1024**2
READING = Reading()


def completed(attributes: str) -> RawEvent:
    sid = f"WT{0:032x}"
    body = urlencode({"TaskSid": sid, "TaskAttributes": attributes}).encode()
    return RawEvent(
        id="EV1", product="taskrouter", type="task.completed", source="/webhooks/taskrouter", subject=sid,
        account_sid="AC1", time_ms=1, content_type="application/x-www-form-urlencoded", body=body,
    )  # fmt: skip


def remembered(count: int, size: int, *, forgetting: bool = False) -> int:
    """Bytes kept of so many texts of so many characters."""
    tracemalloc.start()
    try:
        for number in range(count):
            heard = read(
                completed(f'{{"conversationSid": "CH{number:032x}", "x": "{number:-^{size}d}"}}'), READING
            )
            assert heard.conversation == f"CH{number:032x}"
        if forgetting:
            forget_texts()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        forget_texts()
    return kept


def test_attributes_larger_than_any_of_twilios_are_read_and_not_remembered():
    assert remembered(20, MB) < 4 * MB


def test_of_attributes_that_were_read_nothing_stays_where_somebody_is_to_be_forgotten():
    assert remembered(500, 4000) > MB
    assert remembered(500, 4000, forgetting=True) < MB / 4
