"""Files that pyarrow reads: parquet, arrow, and the compression zst."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

from shoestring.errors import MissingDependencyError

ROW_GROUP_BYTES = 4 << 30
AT_ONCE = 256
"""Rows of parquet that are decoded together."""


def open_zst(path: Path) -> BinaryIO:
    """The decompressed content of a zst file; raises OSError, MissingDependencyError."""
    stream: BinaryIO = _pyarrow(path.name).input_stream(str(path), compression="zstd")
    return stream


def arrow_values(
    file: IO[bytes], kind: str, name: str, columns: Sequence[str]
) -> Iterator[list[dict[str, Any]] | str]:
    """Lists of rows of a parquet or arrow file, or a sentence about some that cannot be read.

    `columns` are the only ones that are read, of which the first has to be there (empty: all). Raises
    ValueError for that and for a damaged file, MissingDependencyError without pyarrow.
    """
    arrow = _pyarrow(name)
    batches = _parquet_batches(file, columns) if kind == ".parquet" else _ipc_batches(file, columns)
    try:
        for batch in batches:
            yield batch if isinstance(batch, str) else batch.to_pylist()
    except (arrow.ArrowException, OSError, MemoryError) as error:
        raise ValueError(f"it is damaged, or no {kind[1:]} file: {error}") from None


def _pyarrow(name: str) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise MissingDependencyError(
            f"reading {name} needs pyarrow: pip install 'shoestring-llm[data]'"
        ) from None
    return pyarrow


def _parquet_batches(file: IO[bytes], columns: Sequence[str]) -> Iterator[Any]:
    """Record batches, or the problem of a row group that is too large."""
    from pyarrow import parquet

    table = parquet.ParquetFile(file)
    names_to_read = _column_names(table.schema_arrow.names, columns)
    for group in range(table.num_row_groups):
        if table.metadata.row_group(group).total_byte_size > ROW_GROUP_BYTES:
            yield f"a row group is larger than {ROW_GROUP_BYTES:,} bytes"
        else:
            yield from table.iter_batches(batch_size=256, row_groups=[group], columns=names_to_read)


def _ipc_batches(file: IO[bytes], columns: Sequence[str]) -> Iterator[Any]:
    """Record batches of an arrow file or stream, checked, because its offsets could point anywhere."""
    from pyarrow import ipc

    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    if is_file:
        reader: Any = ipc.open_file(file)
        batches: Iterator[Any] = map(reader.get_batch, range(reader.num_record_batches))
    else:
        batches = reader = ipc.open_stream(file)
    names_to_read = _column_names(reader.schema.names, columns)
    for batch in batches:
        batch.validate(full=True)
        yield batch.select(names_to_read)


def _column_names(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    if not columns:
        return list(names)
    if columns[0] not in names:
        raise ValueError(f"no column {columns[0]!r}; it has {', '.join(map(str, names[:20]))}")
    return [name for name in dict.fromkeys(columns) if name in names]
