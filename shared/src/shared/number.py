"""Numbers as Brevo takes them.  Pure."""

# Beyond it a float says no whole number exactly: https://www.rfc-editor.org/rfc/rfc8259#section-6
WHOLE_MAX = 2**53


def whole(value: float) -> int | float:
    """A whole number as one; another as it is, and one that is too large to be exact."""
    return int(value) if value.is_integer() and abs(value) <= WHOLE_MAX else value


def as_text(value: float) -> str:
    """A number with all its digits, and no more: 12345.67, and 5 for 5.0."""
    return str(whole(value))
