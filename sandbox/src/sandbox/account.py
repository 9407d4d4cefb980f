"""The rest of a Brevo account: who it is, its contact attributes, lists and folders."""

from dataclasses import dataclass, field
from typing import Any

from sandbox.contact import Attribute
from sandbox.http import Answer, Asked, refused

CATEGORIES = ("normal", "transactional", "category", "calculated", "global")
TYPES = ("text", "date", "float", "boolean", "id", "category", "multiple-choice", "user")
ATTRIBUTES_MAX = 200  # custom ones an account; https://developers.brevo.com/docs/platform-quotas

ACCOUNT = {
    "organization_id": "5a4d6b0f5a4d6b0f",
    "user_id": 1,
    "enterprise": False,
    "companyName": "Tajo sandbox",
    "email": "owner@example.com",
    "firstName": "Olive",
    "lastName": "Owner",
    "plan": [{"type": "free", "creditsType": "sendLimit", "credits": 300}],
    "planVerticals": [
        {"planCategory": "Marketing", "planType": "standard", "name": "Standard", "status": "active"}
    ],
    "marketingAutomation": {"enabled": False},
    "relay": {"enabled": False},
}
"""GET /account: a plan of the tier General."""


@dataclass
class Account:
    """Attributes by name, lists and folders by id.  A new account has three attributes; ours has two lists."""

    attributes: dict[str, Attribute] = field(
        default_factory=lambda: {
            name: Attribute(name, "normal", "text") for name in ("FIRSTNAME", "LASTNAME", "SMS")
        }
    )
    lists: dict[int, str] = field(default_factory=lambda: {32: "Support contacts", 33: "CSAT respondents"})
    folders: dict[int, str] = field(default_factory=lambda: {1: "Your first folder"})

    def list_attributes(self) -> Answer:
        """GET /contacts/attributes.  One of category `category` carries no type."""
        return Answer(200, {"attributes": [_shown(attribute) for attribute in self.attributes.values()]})

    def create_attribute(self, category: str, name: str, asked: Asked) -> Answer:
        """POST /contacts/attributes/{category}/{name}: 201, or 400."""
        body = asked.json()
        type_ = body.get("type", "category" if category == "category" else None)
        if category not in CATEGORIES:
            return refused(400, "invalid_parameter", "Attribute category is invalid")
        if type_ not in TYPES or (type_ in ("multiple-choice", "user") and category != "normal"):
            return refused(400, "invalid_parameter", "Attribute type is invalid")
        if name in self.attributes:
            return refused(400, "invalid_parameter", "Attribute name must be unique")
        if len(self.attributes) >= ATTRIBUTES_MAX:
            return refused(400, "out_of_range", "Attribute limit reached")
        enumeration = body.get("enumeration", [])
        choices = [str(option["value"]) for option in enumeration] or body.get("multiCategoryOptions", [])
        self.attributes[name] = Attribute(name, category, type_, tuple(choices))
        return Answer(201, {})

    def read_list(self, id_: int) -> Answer:
        """GET /contacts/lists/{id}: 200 or 404."""
        if id_ not in self.lists:
            return refused(404, "document_not_found", "List ID does not exist")
        return Answer(200, {"id": id_, "name": self.lists[id_], "folderId": min(self.folders)})

    def create_list(self, asked: Asked) -> Answer:
        """POST /contacts/lists: 201, or 404 without its folder."""
        body = asked.json()
        if not body.get("name"):
            return refused(400, "missing_parameter", "name is missing")
        if body.get("folderId") not in self.folders:
            return refused(404, "document_not_found", "Folder ID does not exist")
        return _named(self.lists, body["name"])

    def create_folder(self, asked: Asked) -> Answer:
        """POST /contacts/folders: 201."""
        name = asked.json().get("name")
        return _named(self.folders, name) if name else refused(400, "missing_parameter", "name is missing")


def _named(things: dict[int, str], name: str) -> Answer:
    id_ = max(things, default=0) + 1
    things[id_] = name
    return Answer(201, {"id": id_})


def _shown(attribute: Attribute) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": attribute.name, "category": attribute.category}
    if attribute.category == "category":
        shown["enumeration"] = [
            {"value": int(value) if value.isdecimal() else 0, "valueStr": value, "label": value}
            for value in attribute.choices
        ]
    else:
        shown["type"] = attribute.type
    if attribute.type == "multiple-choice":
        shown["multiCategoryOptions"] = list(attribute.choices)
    return shown
