"""The one exception that speaks to the user."""

__all__ = ["UserError"]


class UserError(ValueError):
    """A mistake of the user's, or of the files given, said in one line: what, where (path or dotted key), what would
    be right.

    The command line prints it without a traceback and exits with status 2; any other exception is a fault of ours and
    keeps its traceback.
    """
