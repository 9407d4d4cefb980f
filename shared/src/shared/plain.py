"""Values as Brevo takes them.  Pure."""

# Beyond it a float says no whole number exactly: https://www.rfc-editor.org/rfc/rfc8259#section-6
WHOLE_MAX = 2**53


def whole(value: float) -> int | float:
    """A whole number as one; another as it is, and one that is too large to be exact."""
    return int(value) if value.is_integer() and abs(value) <= WHOLE_MAX else value


def plain(value: str | float) -> str | int:
    """A value in the words of the batch schema, which lists neither boolean nor float: yes and no, 5, and "12345.67".

    https://developers.brevo.com/reference/create-batch-events
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        number = whole(value)
        return number if isinstance(number, int) else str(number)
    return value
