"""Exceptions and their exit codes.

ShoestringError                    1    one sentence that says what is wrong and what to do
|-- ConfigError                    2    a wrong name, value or argument, reported before any heavy work
|-- DataError                      1    a corpus or shard that cannot be used
|-- TokenizerError                 1    a tokenizer or chat template that is wrong or does not fit the model
|-- CheckpointError                1    a checkpoint that is missing, damaged or does not fit the model
|   `-- UnsafeFileError            1    a file format that can run code (pickle)
|-- StorageError                   1    the disk is full or a folder cannot be written
|-- NonFiniteError                 1    loss or gradient became infinite or NaN
|-- OutOfMemoryError               1    a step did not fit into memory
|-- CrashError                     1    a step failed by an error that nobody foresaw
|-- ThresholdError                 3    a figure misses the limit that was set for it
|-- MissingDependencyError         4    an optional library, a tool or hardware is missing
`-- Stopped                       75    the run was stopped on request; it is saved and can be resumed
"""


class ShoestringError(Exception):
    """Base class of errors that a user can cause or correct; the text is shown to the user as it is."""

    exit_code = 1


class ConfigError(ShoestringError):
    """A wrong name, value or argument."""

    exit_code = 2


class DataError(ShoestringError):
    """A corpus or shard that cannot be used."""


class TokenizerError(ShoestringError):
    """A tokenizer or chat template that is wrong or does not fit the model."""


class CheckpointError(ShoestringError):
    """A checkpoint that is missing, damaged or does not fit the model."""


class UnsafeFileError(CheckpointError):
    """A file format that can run code when opened, such as pickle."""


class StorageError(ShoestringError):
    """The disk is full or a folder cannot be written."""


class NonFiniteError(ShoestringError):
    """Loss or gradient became infinite or NaN."""


class OutOfMemoryError(ShoestringError):
    """A step did not fit into memory."""


class CrashError(ShoestringError):
    """A step failed by an error that nobody foresaw; its traceback is in the run's folder."""


class ThresholdError(ShoestringError):
    """A figure misses the limit that was set for it."""

    exit_code = 3


class MissingDependencyError(ShoestringError):
    """An optional library, a tool or hardware is missing."""

    exit_code = 4


class Stopped(ShoestringError):
    """The run was stopped on request (Ctrl-C, SIGTERM); it is saved and `--resume` continues it."""

    exit_code = 75
