"""Storage types of GGML: elements per block, and bytes per block."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StorageType:
    """Storage type of GGML: its number in the file, elements per block, bytes per block."""

    name: str
    code: int
    block: int
    block_bytes: int

    def num_bytes(self, elements: int) -> int:
        """Bytes of `elements` elements, a whole number of blocks."""
        return elements // self.block * self.block_bytes


F32 = StorageType("F32", 0, 1, 4)
F16 = StorageType("F16", 1, 1, 2)
BF16 = StorageType("BF16", 30, 1, 2)
Q4_0 = StorageType("Q4_0", 2, 32, 18)
Q8_0 = StorageType("Q8_0", 8, 32, 34)
_BY_LIBRARY = (
    StorageType("Q4_1", 3, 32, 20),
    StorageType("Q5_0", 6, 32, 22),
    StorageType("Q5_1", 7, 32, 24),
    StorageType("Q2_K", 10, 256, 84),
    StorageType("Q3_K", 11, 256, 110),
    StorageType("Q4_K", 12, 256, 144),
    StorageType("Q5_K", 13, 256, 176),
    StorageType("Q6_K", 14, 256, 210),
)
TYPES = {kind.code: kind for kind in (F32, F16, BF16, Q4_0, Q8_0, *_BY_LIBRARY)}
"""Types that can be read, by their number in the file."""
