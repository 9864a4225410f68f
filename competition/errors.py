"""Mistakes that the user can mend. Every message says what is wrong, where, and what to do.

Whatever reads what a user wrote may raise one of them; docstrings say so only where it is not plain. Commands
print these without a traceback and exit with their status (`competition.cli.run`); any other exception is a
mistake of ours and keeps its traceback.
"""


class UserError(Exception):
    """Base of the others."""

    status = 2
    """Exit status of a command that ends with it."""


class ConfigError(UserError):
    """A setting, or something that a setting names, is wrong."""


class DataError(UserError):
    """A table, a label, a molecule, or a file of an earlier step is wrong."""


class SubmissionError(UserError):
    """A submission does not fit the sample."""


class NothingToSubmit(UserError):
    """No stage has finished."""

    status = 1


class ServiceError(UserError):
    """A platform refused, failed, or could not be reached."""
