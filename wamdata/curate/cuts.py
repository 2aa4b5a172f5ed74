"""Where one shot ends and the next begins, by PySceneDetect's detectors on frames that were decoded for all.

Hard cuts by the adaptive detector, which holds a frame's change against that of its neighbours, so that fast motion is
no cut; fades by the level of the picture, cut in the middle of the black. Two things that film of robots is full of are
passed over: repeated frames, which phones and 10 Hz cameras in 30 Hz files leave (beside them every motion would be a
jump), and torn frames and flashes, behind which the picture is the one from before.
"""

from collections import deque
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from wamdata.extras import need

WHAT_FOR = "finding shots"
REPEATS = 5  # in a row that are passed over; a scene that stands still longer is seen as such
SAME = 0.5  # grey levels by which blocks of a repeated frame may differ
NEAR = 3  # frames on each side of a cut that are held against each other: a glitch is shorter
BACK = 0.5  # of the change at a cut; where frames around it differ by less, the picture came back

Seen = tuple[int, NDArray[np.float32]]  # frame, means of its blocks


class CutFinder:
    """Finds cuts in frames that are shown to it one after the other; keeps a few of their scores and block means."""

    def __init__(self) -> None:
        detectors = need("scenedetect.detectors", for_what=WHAT_FOR, extra="curate")
        self._timecode = need("scenedetect", for_what=WHAT_FOR, extra="curate").FrameTimecode
        self._cv2 = need("cv2", for_what=WHAT_FOR, extra="curate")
        # Frames are counted, so times play no part: a variable rate leaves them where they are.
        self._hard = detectors.AdaptiveDetector(min_scene_len=0)
        self._fades = detectors.ThresholdDetector(min_scene_len=0)
        self._rate = Fraction(30)
        self._recent: deque[Seen] = deque(maxlen=4 * NEAR)
        self._repeats = 0
        self._pending: list[int] = []
        self._cuts: set[int] = set()

    def see(self, index: int, rgb: NDArray[np.uint8], blocks: NDArray[np.float32]) -> None:
        """The next frame; `blocks` are its mean levels over blocks of any size."""
        is_repeat = bool(self._recent) and np.abs(blocks - self._recent[-1][1]).max() < SAME
        self._repeats = self._repeats + 1 if is_repeat else 0
        if is_repeat and self._repeats <= REPEATS:
            return
        self._recent.append((index, blocks))
        at = self._timecode(index, fps=self._rate)
        bgr = self._cv2.cvtColor(self._half(rgb), self._cv2.COLOR_RGB2BGR)
        self._pending += [cut.frame_num for cut in self._hard.process_frame(at, bgr)]
        self._cuts |= {cut.frame_num for cut in self._fades.process_frame(at, bgr) if cut.frame_num > 0}
        while self._pending and sum(i > self._pending[0] for i, _ in self._recent) >= NEAR:
            self._settle(self._pending.pop(0))

    def finish(self) -> list[int]:
        """First frames of the shots behind the first one, in order."""
        while self._pending:
            self._settle(self._pending.pop(0))
        return sorted(self._cuts)

    def _half(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A quarter of the pixels show a cut as well, in a third of the time."""
        size = (max(rgb.shape[1] // 2, 1), max(rgb.shape[0] // 2, 1))
        return self._cv2.resize(rgb, size, interpolation=self._cv2.INTER_AREA)

    def _settle(self, cut: int) -> None:
        """Take a cut for one, unless the picture from before it comes back."""
        before = [blocks for index, blocks in self._recent if index < cut][-NEAR:]
        behind = [blocks for index, blocks in self._recent if index >= cut][: NEAR + 1]
        nearest = min(_apart(a, b) for a in before for b in behind)
        if nearest >= BACK * _apart(before[-1], behind[0]):
            self._cuts.add(cut)


def _apart(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).mean())
