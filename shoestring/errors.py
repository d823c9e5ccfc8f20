"""The exception tree and the exit codes it maps to.

ShoestringError                    1    one sentence that names the thing and the way out
|-- ConfigError                    2    a wrong name, value or argument, found before any heavy work
|-- DataError                      1    a corpus, shard or loader that cannot be used
|-- TokenizerError                 1    a tokenizer or chat template that is wrong or does not fit the model
|-- CheckpointError                1    a checkpoint that is missing, damaged or does not fit
|   `-- UnsafeFileError            1    a file format that can run code (pickle): refused by name
|-- StorageError                   1    the disk is full or a folder cannot be written
|-- NonFiniteError                 1    loss or gradient became infinite or NaN; the batch was kept
|-- ThresholdError                 3    everything ran, and a stated figure was not met
|-- MissingDependencyError         4    an optional library, a tool or hardware is not there
`-- Stopped                       75    asked to stop; everything is saved and the run can be resumed
"""


class ShoestringError(Exception):
    """Base of every error a user can cause or repair; its text is shown to them as it is."""

    exit_code = 1


class ConfigError(ShoestringError):
    """A wrong name, value or argument."""

    exit_code = 2


class DataError(ShoestringError):
    """A corpus, shard or loader that cannot be used."""


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


class ThresholdError(ShoestringError):
    """Everything ran, but a figure that was asked for was not met."""

    exit_code = 3


class MissingDependencyError(ShoestringError):
    """An optional library, a tool or hardware is not there."""

    exit_code = 4


class Stopped(ShoestringError):
    """Asked to stop (Ctrl-C, SIGTERM); everything is saved and `--resume` continues."""

    exit_code = 75
