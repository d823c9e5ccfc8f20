"""The energy of each answer: what the machine used while it was written, shared with the others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shoestring.train.report.energy import EnergyMeter


class EnergyShares:
    """Divides the machine's energy among the answers that are written, equally at every moment.

    Use it on one event loop. The shares of all answers add up to the machine's energy while one was written.
    """

    def __init__(self, meter: EnergyMeter) -> None:
        self.meter = meter
        """The machine's."""
        self._num_answers = 0
        self._joules = 0.0
        """The machine's, when the number of answers last changed."""
        self._share = 0.0
        """The share of an answer that was written from the beginning on."""

    @contextmanager
    def answer(self) -> Iterator[Callable[[], float | None]]:
        """Count an answer inside the block; yields a function for its joules so far.

        They are None where the machine does not tell its energy.
        """
        self._advance()
        begin = self._share
        self._num_answers += 1
        try:
            yield lambda: self._share - begin if self._advance() else None
        finally:
            self._advance()
            self._num_answers -= 1

    def _advance(self) -> bool:
        """Divide what was used since the last time; False where nothing is known."""
        joules = self.meter.read_now().joules
        if joules is None:
            return False
        if self._num_answers > 0:
            self._share += (joules - self._joules) / self._num_answers
        self._joules = joules
        return True
