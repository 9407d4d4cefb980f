"""The endpoints we call: one line each saying what the real API allows.  tests/contract holds them to its OpenAPI.

https://www.twilio.com/docs/taskrouter/api, https://www.twilio.com/docs/conversations/api,
https://www.twilio.com/docs/flex/developer, https://www.twilio.com/docs/events/event-streams
"""

from typing import Literal

from msgspec import Struct

from shared.config import RateName

Product = Literal["taskrouter", "conversations", "flex", "events"]

LIMITS: dict[RateName, int] = {
    "flex": 100,
    "conversations": 100,
    "taskrouter": 30,
    "taskrouter_events": 20,
    "events": 20,  # nobody documents one
    "interactions": 20,  # these three: https://www.twilio.com/docs/flex/developer/conversations/limits
    "web_chats": 5,
    "web_channels": 1,
}
"""Calls a second.  TaskRouter shows its own per endpoint only in the Console (Workspace > Limits)."""


class Endpoint(Struct, frozen=True, kw_only=True):
    """One method of one path.  `doc` says what to know before calling it."""

    product: Product
    path: str
    doc: str
    method: Literal["GET", "POST", "DELETE"] = "GET"
    key: str = ""  # of the list in a page; empty where the answer is one thing
    page_size: int = 0  # the most a page may hold
    takes: tuple[str, ...] = ()  # query parameters of a GET, form fields of a POST
    limits: tuple[RateName, ...] = ()  # further ones than its product's

    @property
    def counted(self) -> tuple[RateName, ...]:
        """Under which limits a call counts."""
        return (self.product, *self.limits)


_WS = "/v1/Workspaces/{WorkspaceSid}"
_IS = "/v1/Services/{ChatServiceSid}"
_STATISTICS = ("StartDate", "EndDate", "Minutes", "TaskChannel")

# -- Flex ---------------------------------------------------------------------------------------------------

CONFIGURATION = Endpoint(
    product="flex", path="/v1/Configuration", takes=("UiVersion",),
    doc="Names the workspace, the chat service and the Flex instance; 403 or 404 where Flex is not enabled.",
)  # fmt: skip
CHANNELS = Endpoint(
    product="flex", path="/v1/Channels", key="flex_chat_channels", page_size=50,
    doc="Legacy (Flex UI 1.x); no filters.  Accounts with Flex Conversations have none.",
)  # fmt: skip
WEB_CHANNELS = Endpoint(
    product="flex", path="/v1/WebChannels", key="flex_chat_channels", page_size=50, limits=("web_channels",),
    doc="Legacy; its list has the key of Channels.  One call a second.",
)  # fmt: skip
WEB_CHANNEL_CREATE = Endpoint(
    product="flex", path="/v1/WebChannels", method="POST", limits=("web_chats",),
    takes=("FlexFlowSid", "Identity", "CustomerFriendlyName", "ChatFriendlyName", "ChatUniqueName", "PreEngagementData"),
    doc="Begins a legacy web chat; the first four are required.",
)  # fmt: skip
WEB_CHAT_CREATE = Endpoint(
    product="flex", path="/v2/WebChats", method="POST", limits=("web_chats",),
    takes=("AddressSid", "ChatFriendlyName", "CustomerFriendlyName", "PreEngagementData", "Identity"),
    doc="Begins a web chat of Flex Conversations and answers its conversation_sid; AddressSid is required.",
)  # fmt: skip
INTERACTION = Endpoint(
    product="flex", path="/v1/Interactions/{InteractionSid}", limits=("interactions",),
    doc="One by its sid (KD…): there is no list.  The documentation says it cannot be read; some accounts can.",
)  # fmt: skip

# -- TaskRouter ---------------------------------------------------------------------------------------------

WORKSPACE = Endpoint(
    product="taskrouter", path=_WS, doc="Its name, and event_callback_url with events_filter: there is one of each."
)  # fmt: skip
WORKSPACE_UPDATE = Endpoint(
    product="taskrouter", path=_WS, method="POST", takes=("EventCallbackUrl", "EventsFilter"),
    doc="Overwrites the one event_callback_url there is.",
)  # fmt: skip
EVENTS = Endpoint(
    product="taskrouter", path=f"{_WS}/Events", key="events", page_size=1000, limits=("taskrouter_events",),
    takes=("StartDate", "EndDate", "Minutes", "EventType", "TaskSid", "WorkerSid", "ReservationSid", "TaskQueueSid",
           "WorkflowSid", "TaskChannel", "Sid"),
    doc="30 days, the last 15 minutes unless told; attributes of older ones are redacted; in no order that is promised.",
)  # fmt: skip
TASKS = Endpoint(
    product="taskrouter", path=f"{_WS}/Tasks", key="tasks", page_size=1000,
    takes=("AssignmentStatus", "Priority", "WorkflowSid", "TaskQueueSid", "HasAddons", "Ordering"),
    doc="No filter by date; finished ones are gone after 5 minutes; attributes may be null: fetch the task then.",
)  # fmt: skip
TASK = Endpoint(
    product="taskrouter", path=f"{_WS}/Tasks/{{Sid}}", doc="With its attributes; 404 5 minutes after it has ended."
)  # fmt: skip
WORKERS = Endpoint(
    product="taskrouter", path=f"{_WS}/Workers", key="workers", page_size=1000,
    takes=("ActivityName", "ActivitySid", "Available", "FriendlyName", "TaskQueueSid", "Ordering"),
    doc="The agents; attributes may be null in the list.",
)  # fmt: skip
WORKER = Endpoint(product="taskrouter", path=f"{_WS}/Workers/{{Sid}}", doc="One agent, with attributes.")
TASK_QUEUES = Endpoint(
    product="taskrouter", path=f"{_WS}/TaskQueues", key="task_queues", page_size=1000,
    takes=("FriendlyName", "WorkerSid", "Ordering"), doc="At most 250 in a workspace.",
)  # fmt: skip
WORKSPACE_CUMULATIVE = Endpoint(
    product="taskrouter", path=f"{_WS}/CumulativeStatistics", takes=(*_STATISTICS, "SplitByWaitTime"),
    doc="The last 15 minutes unless told.  Twilio asks to cache statistics.",
)  # fmt: skip
WORKSPACE_REAL_TIME = Endpoint(
    product="taskrouter", path=f"{_WS}/RealTimeStatistics", takes=("TaskChannel",), doc="Tasks by status, agents by activity."
)  # fmt: skip
QUEUE_CUMULATIVE = Endpoint(
    product="taskrouter", path=f"{_WS}/TaskQueues/{{TaskQueueSid}}/CumulativeStatistics",
    takes=(*_STATISTICS, "SplitByWaitTime"), doc="Waits and counts of one queue; of hours with traffic it takes seconds.",
)  # fmt: skip
QUEUE_REAL_TIME = Endpoint(
    product="taskrouter", path=f"{_WS}/TaskQueues/{{TaskQueueSid}}/RealTimeStatistics", takes=("TaskChannel",),
    doc="The longest wait and the tasks by status of one queue.",
)  # fmt: skip

# -- Conversations ------------------------------------------------------------------------------------------

CONVERSATIONS = Endpoint(
    product="conversations", path=f"{_IS}/Conversations", key="conversations", page_size=100,
    takes=("StartDate", "EndDate", "State"),
    doc="Flex's are in its own service.  Both dates are of creation, by whole days; there is no `updated since`.",
)  # fmt: skip
CONVERSATION = Endpoint(
    product="conversations", path=f"{_IS}/Conversations/{{Sid}}", doc="One; 404 once it is deleted."
)  # fmt: skip
PARTICIPANTS = Endpoint(
    product="conversations", path=f"{_IS}/Conversations/{{ConversationSid}}/Participants", key="participants", page_size=100,
    doc="The customer is the one with a messaging_binding; in a web chat the one who is no agent.",
)  # fmt: skip
MESSAGES = Endpoint(
    product="conversations", path=f"{_IS}/Conversations/{{ConversationSid}}/Messages", key="messages", page_size=100,
    takes=("Order",), doc="With their bodies: read only where the connector file asks for them.",
)  # fmt: skip

# -- Event Streams ------------------------------------------------------------------------------------------

SINKS = Endpoint(
    product="events", path="/v1/Sinks", key="sinks", page_size=100, takes=("InUse", "Status"), doc="At most 100 an account."
)  # fmt: skip
SINK_CREATE = Endpoint(
    product="events", path="/v1/Sinks", method="POST", takes=("Description", "SinkConfiguration", "SinkType"),
    doc="SinkConfiguration is a JSON text; a webhook sink is active at once.",
)  # fmt: skip
SUBSCRIPTIONS = Endpoint(
    product="events", path="/v1/Subscriptions", key="subscriptions", page_size=100, takes=("SinkSid",),
    doc="One a sink; the types stand in SubscribedEvents.",
)  # fmt: skip
SUBSCRIPTION_CREATE = Endpoint(
    product="events", path="/v1/Subscriptions", method="POST", takes=("Description", "SinkSid", "Types"),
    doc="`Types` once for each type, each a JSON text with its schema_version: else the latest of that day is taken.",
)  # fmt: skip
SUBSCRIBED_EVENTS = Endpoint(
    product="events", path="/v1/Subscriptions/{SubscriptionSid}/SubscribedEvents", key="types", page_size=100,
    doc="What a subscription delivers.",
)  # fmt: skip
SUBSCRIBED_EVENT_CREATE = Endpoint(
    product="events", path="/v1/Subscriptions/{SubscriptionSid}/SubscribedEvents", method="POST", takes=("Type", "SchemaVersion"),
    doc="Adds one type; one that is there already stays as it is.",
)  # fmt: skip
SUBSCRIPTION_DELETE = Endpoint(
    product="events", path="/v1/Subscriptions/{Sid}", method="DELETE", doc="Leaves its sink, which can be deleted after it."
)  # fmt: skip
SINK_DELETE = Endpoint(
    product="events", path="/v1/Sinks/{Sid}", method="DELETE", doc="Refused while a subscription delivers to it."
)  # fmt: skip
EVENT_TYPES = Endpoint(
    product="events", path="/v1/Types", key="types", page_size=1000, takes=("SchemaId",),
    doc="What can be subscribed to; `status` is available, deprecated, restricted or discontinued.",
)  # fmt: skip

ENDPOINTS = {
    name.lower(): endpoint for name, endpoint in dict(globals()).items() if isinstance(endpoint, Endpoint)
}
"""All of them by name."""
