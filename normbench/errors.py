"""Errors whose messages a user sees as they are: what is wrong with a command, or with what it asks for."""


class UserError(Exception):
    """The user's mistake, in words for the user: the rule, what came, what to type. The command line exits with 2."""


class ConfigError(UserError):
    """The user asked for a run that can't be made."""


class Unsupported(UserError, ValueError):
    """This scheme cannot train this network at this batch size. The message says why and what to type."""


class Stopped(Exception):
    """A run was asked to stop. Its checkpoint is written: repeating the command continues it."""
