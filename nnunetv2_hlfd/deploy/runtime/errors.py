"""The error that a user can mend. This program shares none with the package that it is exported by."""


class UserError(ValueError):
    """An argument, image or file is not as it should be; the message says what was expected and what came."""
