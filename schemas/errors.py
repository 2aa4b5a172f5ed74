"""The two errors a user can cause. Each message says what, where, and what to do, in one line."""


class WamError(Exception):
    """Base of every error that the command line turns into one line and exit code 2."""


class UsageError(WamError):
    """A command, recipe or embodiment asks for something that cannot be."""


class DataError(WamError):
    """A log, shard or checkpoint is not what it should be."""


def first_line(error: Exception) -> str:
    """What a library's error says in its first line, or the error's name where it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
