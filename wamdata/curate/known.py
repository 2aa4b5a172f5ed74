"""The shots that were kept so far, to hold the next one against."""

import numpy as np

from schemas.curate import CurateRules
from schemas.episode import Float32
from wamdata.curate.copies import Print, is_copy
from wamdata.curate.scores import Reason


class KnownShots:
    """Grows by every shot that is neither a copy of one of its own nor shows the same."""

    def __init__(self, rules: CurateRules) -> None:
        self._rules = rules
        self._prints: list[tuple[str, Print]] = []
        self._looks: list[tuple[str, Float32]] = []

    def meet(self, name: str, seen: Print, look: Float32 | None) -> Reason | None:
        """Why a shot is dropped; None of a new one, which is known from then on.

        Args:
            look: its embedding, of length one, if there is an encoder.
        """
        if self._rules.duplicates:
            for old, known in self._prints:
                if is_copy(seen, known, bits=self._rules.duplicate_bits):
                    return "duplicate", f"a copy of {old}"
        if look is not None and self._looks:
            alike = np.stack([known for _, known in self._looks]) @ look
            at = int(alike.argmax())
            if alike[at] >= self._rules.duplicate_similarity:
                return "similar", f"shows the same as {self._looks[at][0]} (similarity {alike[at]:.3f})"
        self._prints.append((name, seen))
        if look is not None:
            self._looks.append((name, look))
        return None
