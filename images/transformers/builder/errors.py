"""The refusal of a build."""


class BuildError(Exception):
    """This cannot be built: what was wanted, what was found, what to do."""
