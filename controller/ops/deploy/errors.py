"""
What may go wrong on the way to a box, by what the operator has to do about it. Pure.

    DeployError
    ├── UnusableError        the command line, the inventory or this checkout cannot be used
    ├── UnreachableBoxError  no connection, or it was lost; run the same command again
    ├── UnfitError           the box cannot take this release; `problems` lists why
    ├── LockedError          somebody else is at work on the box
    ├── TrialError           the new release was tried beside the old one and did not do; the old one goes on
    └── WentBackError        the new release was switched to, did not hold, and the old one is back
"""

from collections.abc import Sequence
from typing import ClassVar

from controller.errors import WindlassError


class DeployError(WindlassError):
    """A box does not run what it should; `status` is what the command exits with."""

    status: ClassVar[int] = 1


class UnusableError(DeployError):
    """The command line, the inventory or this checkout cannot be used; no box was touched."""

    status = 2


class UnreachableBoxError(DeployError):
    """A box cannot be reached, or the connection was lost; the same command goes on where this one ended."""

    status = 3


class UnfitError(DeployError):
    """
    A box cannot take the release.

    Attributes:
        problems: all reasons, one sentence each.

    """

    status = 4

    def __init__(self, problems: Sequence[str]) -> None:
        """Join the problems into one text, one a line."""
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class LockedError(DeployError):
    """Somebody else is at work on the box."""

    status = 5


class TrialError(DeployError):
    """The new release was tried beside the old one and did not do; the old one has never stopped."""

    status = 6


class WentBackError(DeployError):
    """The new release ran and did not hold; the old one is back."""

    status = 7
