"""The exceptions that speak to the user."""

__all__ = ["PartnerGone", "Stopped", "UserError"]


class UserError(ValueError):
    """A mistake of the user's, or of the files given, said in one line: what, where (path or dotted key), what would
    be right.

    The command line prints it without a traceback and exits with status 2; any other exception is a fault of ours and
    keeps its traceback.
    """


class PartnerGone(UserError):  # noqa: N818 - as Stopped
    """Another process of this training ended or cannot be reached."""


class Stopped(Exception):  # noqa: N818 - not an error
    """A command that was asked to stop, a training after it saved; ``status`` is the exit status that the signal calls
    for."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
