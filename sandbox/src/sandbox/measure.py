"""TaskRouter's statistics, computed from its events.  Pure.

Shapes: https://www.twilio.com/docs/taskrouter/api/taskqueue-statistics
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from sandbox.twilio import TaskRouterEvent, iso


def cumulative(events: Iterable[TaskRouterEvent], start_ms: int, end_ms: int) -> dict[str, Any]:
    """What happened between two moments."""
    within = [event for event in events if start_ms <= event.time_ms < end_ms]
    seen = Counter(event.type for event in within)
    entered = {
        event.fields["task_sid"]: event.time_ms for event in within if event.type == "task-queue.entered"
    }
    waits = [
        (event.time_ms - entered[event.fields["task_sid"]]) // 1000
        for event in within
        if event.type == "reservation.accepted" and event.fields["task_sid"] in entered
    ]
    return {
        "start_time": iso(start_ms), "end_time": iso(end_ms),
        "avg_task_acceptance_time": sum(waits) // len(waits) if waits else 0,
        "reservations_created": seen["reservation.created"], "reservations_accepted": seen["reservation.accepted"],
        "reservations_rejected": seen["reservation.rejected"], "reservations_timed_out": seen["reservation.timeout"],
        "tasks_entered": seen["task-queue.entered"], "tasks_canceled": seen["task.canceled"],
        "tasks_completed": seen["task.completed"], "tasks_moved": seen["task-queue.moved"],
        "wait_duration_until_accepted": {
            "total": sum(waits), "avg": sum(waits) // len(waits) if waits else 0, "min": min(waits, default=0),
            "max": max(waits, default=0),
        },
    }  # fmt: skip


def real_time(events: Iterable[TaskRouterEvent], _start_ms: int, end_ms: int) -> dict[str, Any]:
    """How things are at a moment."""
    status: dict[str, str] = {}
    for event in sorted(events, key=lambda event: event.time_ms):
        if event.time_ms <= end_ms and "task_sid" in event.fields:
            status[event.fields["task_sid"]] = event.fields["task_assignment_status"]
    counts = Counter(status.values())
    return {
        "tasks_by_status": {name: counts[name] for name in ("pending", "reserved", "assigned", "wrapping")},
        "total_tasks": sum(counts[name] for name in ("pending", "reserved", "assigned", "wrapping")),
        "activity_statistics": [], "longest_task_waiting_age": 0,
    }  # fmt: skip
