"""The error that a user can mend."""


class UserError(ValueError):
    """Something outside the program is not as it should be: an argument, a file, a setting, a variable.

    The message says what was expected, what came, and what mends it. The command line prints it alone and ends with
    exit code 2. Any other exception is a fault of the program and keeps its traceback.
    """
