"""The two errors a user can cause. Each message says what, where, and what to do, in one line."""


class WamError(Exception):
    """Base of every error that the command line turns into one line and exit code 2."""


class UsageError(WamError):
    """A command, recipe or embodiment asks for something that cannot be."""


class DataError(WamError):
    """A log, shard or checkpoint is not what it should be."""
