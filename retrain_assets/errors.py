"""Errors a user can act on: each message says what is wrong and what to do about it."""

from __future__ import annotations


class RetrainError(Exception):
    """Base of every error that is the input's fault, not the program's.

    The command line prints its message without a traceback; an asset turns it into a
    failure that is not retried, because trying again would not help.
    """


class BadInput(RetrainError):
    """A file, row, field or option that cannot be used as it stands."""


class NotEnoughBars(RetrainError):
    """A history too short for the requested split; the message names the bars needed."""


class CheckpointError(RetrainError):
    """A model or adapter folder that is incomplete, foreign, or does not fit its base."""


class TrainingFailed(RetrainError):
    """A training that ran and came to nothing: its losses diverged, or memory did not suffice."""
