"""The failures that a person can mend, each with the exit code that the contract gives it."""


class FastssdError(Exception):
    """A failure that is said in one message, without a traceback.

    Args:
        args: The message; where several things are wrong, each in a message of its own.
    """

    exit_code = 1

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class ConfigError(FastssdError):
    """The user's config or arguments are wrong: the message names the key and a valid value."""

    exit_code = 2


class DataError(FastssdError):
    """Files are damaged or missing: the message names the file, and the sample if there is one."""

    exit_code = 3
