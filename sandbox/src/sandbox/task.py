"""The life of a TaskRouter task, told as the events TaskRouter would tell.  Pure.

https://www.twilio.com/docs/taskrouter/lifecycle-task-state
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sandbox.twilio import TaskRouterEvent, sid

DAY = "2026-11-20"
WRAPUP_LAG_MS, COMPLETED_LAG_MS = 13, 6  # a task follows its reservation by some milliseconds


def at(clock: str) -> int:
    """HH:MM:SS.mmm of the day, UTC, as epoch milliseconds."""
    return round(datetime.fromisoformat(f"{DAY}T{clock}+00:00").timestamp() * 1000)


@dataclass(frozen=True)
class Agent:
    """A worker."""

    login: str
    name: str

    @property
    def sid(self) -> str:
        """WK…"""
        return sid("WK", self.login)

    def fields(self, activity: str = "Available") -> dict[str, Any]:
        """As a reservation's event tells of the worker."""
        uri = self.login.replace("@", "_40").replace(".", "_2E")
        return {
            "worker_sid": self.sid,
            "worker_name": self.login,
            "worker_attributes": {
                "contact_uri": f"client:{uri}",
                "full_name": self.name,
                "email": self.login,
                "roles": ["agent"],
                "routing": {"skills": ["support"], "levels": {}},
            },
            "worker_activity_sid": sid("WA", activity),
            "worker_activity_name": activity,
            "worker_version": 42,
        }

    def moves(self, clock: str, before: str, after: str, seconds: int) -> TaskRouterEvent:
        """worker.activity.update: from one activity to another, after so many seconds in the first."""
        fields = {
            **self.fields(after),
            "worker_previous_activity_sid": sid("WA", before),
            "worker_previous_activity_name": before,
            "worker_time_in_previous_activity": seconds,
            "worker_time_in_previous_activity_ms": seconds * 1000,
        }
        description = f"Worker {self.login} updated to {after} Activity"
        return TaskRouterEvent("worker.activity.update", at(clock), "worker", self.sid, description, fields)


@dataclass
class Task:
    """A task under way.  Each method is something that happens to it, and gives the events that tell of it."""

    name: str
    channel: str  # TaskChannelUniqueName: voice, chat, sms
    queue: str
    attributes: dict[str, Any]
    created_ms: int = 0
    entered_ms: int = 0
    status: str = "pending"
    version: int = 0
    _versions: dict[str, int] = field(default_factory=dict)  # of reservations, by sid

    @property
    def sid(self) -> str:
        """WT…"""
        return sid("WT", self.name)

    def created(self, clock: str) -> list[TaskRouterEvent]:
        """task.created, and soon after task-queue.entered."""
        self.created_ms = at(clock)
        first = self._event("task.created", self.created_ms, "created")
        self.entered_ms = self.created_ms + 86
        entered = self._event("task-queue.entered", self.entered_ms, f"entered TaskQueue {self.queue}")
        return [first, entered]

    def accepted(self, clock: str, agent: Agent, *, after_s: float = 4.0) -> list[TaskRouterEvent]:
        """An agent was asked `after_s` before, and takes it."""
        now_ms = at(clock)
        self.status = "reserved"
        offered = self._reservation("created", now_ms - round(after_s * 1000), agent)
        self.status = "assigned"
        return [offered, self._reservation("accepted", now_ms, agent)]

    def wrapup(self, clock: str, agent: Agent) -> list[TaskRouterEvent]:
        """The conversation is over; the agent writes it up."""
        self.status = "wrapping"
        now_ms = at(clock)
        reservation = self._reservation("wrapup", now_ms - WRAPUP_LAG_MS, agent)
        return [reservation, self._event("task.wrapup", now_ms, "moved to wrapping")]

    def updated(self, clock: str, changes: Mapping[str, Any]) -> list[TaskRouterEvent]:
        """task.updated: attributes changed; objects are merged."""
        for key, value in changes.items():
            known = self.attributes.get(key)
            merged = {**known, **value} if isinstance(known, dict) else value
            self.attributes = {**self.attributes, key: merged}
        return [self._event("task.updated", at(clock), "attributes updated")]

    def completed(self, clock: str, agent: Agent | None) -> list[TaskRouterEvent]:
        """The agent is done, or nobody was needed."""
        self.status = "completed"
        now_ms, reason = at(clock), "Task completed by agent"
        reason = reason if agent else "Survey stored"
        last = [self._reservation("completed", now_ms - COMPLETED_LAG_MS, agent)] if agent else []
        fields = {"task_completed_reason": reason, "reason": reason}
        return [*last, self._event("task.completed", now_ms, "completed", **fields)]

    def canceled(self, clock: str, reason: str = "hangup") -> list[TaskRouterEvent]:
        """It ends before anybody took it."""
        self.status = "canceled"
        fields = {"task_canceled_reason": reason, "reason": reason}
        return [self._event("task.canceled", at(clock), f"canceled: {reason}", **fields)]

    def transferred(self, clock: str, agent: Agent, to: Agent, queue: str) -> list[TaskRouterEvent]:
        """A voice call handed on: the same task, another reservation.  `clock` is when the other one takes it."""
        now_ms = at(clock)
        transfer = {
            "transfer_mode": "COLD", "transfer_type": "WORKER", "transfer_to": to.sid,
            "transfer_initiating_worker_sid": agent.sid,
            "transfer_initiating_reservation_sid": self._reservation_sid(agent),
            "task_transfer_sid": sid("TT", self.name),
        }  # fmt: skip
        asked = {**transfer, "transfer_status": "INITIATED"}
        done = {**transfer, "transfer_status": "COMPLETE"}
        first = self._event("task.transfer-initiated", now_ms - 9_000, "transfer initiated", **asked)
        self.queue = queue
        return [
            first,
            self._reservation("created", now_ms - 8_500, to),
            self._reservation("accepted", now_ms, to),
            self._reservation("completed", now_ms + 40, agent),
            self._event("task.transfer-completed", now_ms + 60, "transfer completed", **done),
        ]

    def _event(self, type_: str, time_ms: int, what: str, **more: Any) -> TaskRouterEvent:
        self.version += 1
        fields = {**self._fields(time_ms, queued=type_ != "task.created"), **more}
        return TaskRouterEvent(type_, time_ms, "task", self.sid, f"Task {self.sid} {what}", fields)

    def _reservation(self, what: str, time_ms: int, agent: Agent) -> TaskRouterEvent:
        self.version += 1
        reservation = self._reservation_sid(agent)
        version = self._versions[reservation] = self._versions.get(reservation, -1) + 1
        fields = {
            **self._fields(time_ms),
            **agent.fields(),
            "worker_channel_capacity": 1,
            "worker_channel_consumed_capacity": 1,
            "reservation_sid": reservation,
            "reservation_version": version,
        }
        description = f"Reservation {reservation} {what}"
        return TaskRouterEvent(
            f"reservation.{what}", time_ms, "reservation", reservation, description, fields
        )

    def _reservation_sid(self, agent: Agent) -> str:
        return sid("WR", f"{self.name} {agent.login}")

    def _fields(self, time_ms: int, *, queued: bool = True) -> dict[str, Any]:
        queue = {
            "task_queue_sid": sid("WQ", self.queue),
            "task_queue_name": self.queue,
            "task_queue_target_expression": 'routing.skills HAS "support"',
            "task_queue_entered_date": _moment(self.entered_ms),
        }
        return {
            "task_sid": self.sid,
            "task_attributes": self.attributes,
            "task_age": (time_ms - self.created_ms) // 1000,
            "task_priority": 0,
            "task_assignment_status": self.status,
            "task_version": self.version,
            "task_date_created": _moment(self.created_ms),
            "task_virtual_start_time": _moment(self.created_ms),
            "task_ignore_capacity": False,
            "task_channel_sid": sid("TC", self.channel),
            "task_channel_unique_name": self.channel,
            "workflow_sid": sid("WW", "anyone"),
            "workflow_name": "Assign to Anyone",
            **(queue if queued else {}),
        }


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1000, UTC)
