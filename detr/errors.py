"""The one exception that means "this is for the user to put right"; every room may raise it, it imports nothing."""


class UserError(ValueError):
    """One clear sentence for the user: which file, image or flag; what was found; what is accepted.

    The scripts print it without a traceback and exit with code 2 (`utils.run_script`).
    """
