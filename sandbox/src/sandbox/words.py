"""Twilio's errors as it words them.  https://www.twilio.com/docs/api/errors"""

from sandbox.http import Answer


def refused(status: int, code: int, message: str) -> Answer:
    """An error as Twilio words it."""
    url = f"https://www.twilio.com/docs/errors/{code}"
    return Answer(status, {"code": code, "message": message, "more_info": url, "status": status})


WORDS = {
    status: refused(status, code, message)
    for status, code, message in (
        (400, 20001, "Invalid parameter"), (401, 20003, "Authenticate"), (403, 20403, "Forbidden"),
        (404, 20404, "The requested resource was not found"), (429, 20429, "Too Many Requests"),
        (500, 20500, "Internal Server Error"), (503, 20503, "Service Unavailable"),
    )
}  # fmt: skip
