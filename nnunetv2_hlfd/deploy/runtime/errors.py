"""The error that a user can mend, and what other errors say. This program shares none with its exporting package."""


class UserError(ValueError):
    """An argument, image or file is not as it should be; the message says what was expected and what came."""


def last_line(error: BaseException) -> str:
    """Return the line of a message that says most: SimpleITK puts its own source code's place before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
