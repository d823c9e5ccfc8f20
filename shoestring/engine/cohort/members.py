"""Members of a cohort: what a decoding step needs of each sequence, as one array for each quantity."""

from collections.abc import Iterable
from collections.abc import Sequence as Listing
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from shoestring.engine.runner import IntArray, TableRows
from shoestring.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Members:
    """M sequences; the arrays follow their tokens, the sequences themselves stay as they were."""

    sequences: list[Sequence]
    columns_M: IntArray
    """Columns of their tokens in the record of the cohort."""
    ids_M: IntArray
    """The newest token, whose entries are not in the cache yet."""
    lengths_M: IntArray
    """Tokens of prompt and output."""
    limits_M: IntArray
    """The length at which a completion ends."""
    prompts_M: IntArray
    """Tokens of the prompt."""
    pages_M: IntArray
    """Pages that it holds."""
    table_rows_M: TableRows
    seeds_M: IntArray
    """Their 64 bits."""
    temperatures_M: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    """0 for the likeliest token."""
    stops_M: IntArray
    """The number of its set of tokens that end it."""

    @classmethod
    def of(cls, sequences: list[Sequence], stops: Listing[int]) -> "Members":
        """Decoding sequences with the number of each one's set of stops."""

        def column(values: Iterable[int], dtype: type = np.int64) -> Any:
            return np.fromiter(values, dtype, len(sequences))

        return cls(
            sequences=sequences,
            columns_M=np.arange(len(sequences)),
            ids_M=column(each.token_ids[-1] for each in sequences),
            lengths_M=column(len(each.token_ids) for each in sequences),
            limits_M=column(each.max_length for each in sequences),
            prompts_M=column(each.num_prompt_tokens for each in sequences),
            pages_M=column(len(each.page_ids) for each in sequences),
            table_rows_M=column((each.table_row for each in sequences), np.int32),
            seeds_M=column((each.seed & (2**64 - 1) for each in sequences), np.uint64).view(np.int64),
            temperatures_M=np.array(
                [0 if p.is_greedy else p.temperature for p in (each.params for each in sequences)], float
            ),
            stops_M=np.array(stops),
        )

    def __len__(self) -> int:
        return len(self.sequences)

    def at(self, places: Listing[int] | IntArray) -> "Members":
        """Those members alone."""
        arrays = {each.name: getattr(self, each.name)[places] for each in fields(self)[1:]}
        return Members([self.sequences[place] for place in places], **arrays)
