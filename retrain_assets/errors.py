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


class Transient(RetrainError):
    """What is outside and may be well again in a moment: a network, a lock, a database.

    An asset waits a little and tries again, a few times, before it fails.
    """


class OutOfMemory(TrainingFailed):
    """One training window, at the shortest context there is, that does not fit into memory."""


class CannotWrite(RetrainError, OSError):
    """A disk that is full, or does not take a file; trying again helps once there is room.

    Its arguments are those of OSError: the system's number, its words, and the path.
    """

    def __str__(self) -> str:
        return (
            f"cannot write {self.filename} ({self.strerror}): make room on the disk, or see to the "
            "permissions there, or point RETRAIN_HOME elsewhere, and run again: it goes on from "
            "what is done already"
        )
