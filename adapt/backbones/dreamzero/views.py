"""One mosaic: where each camera lies on the canvas, and the sentence that tells the model so.

The pixels and the words come from the same cells, so that they cannot disagree. Four styles are the public
reference's own, pixel for pixel and word for word: `droid`, `agibot` (xdof too), `yam` and `human`. The others are
generated for any robot: `whole` (one camera), `stack` (two, one above the other), `quad` (two to four in quarters, a
missing one black) and `wide` (three, the last one across the top).

A mosaic is a grid of equal units, and a view that spans several repeats its pixels, as the reference does with DROID's
wrist. Views are resized to the unit, aspect ratio not kept, as in the reference: a camera of 4:3 is 36 % too wide in a
canvas of 640 x 352, and 2.7 times in `stack`. Nothing is letterboxed: the base model has never seen bars, and black
costs tokens; a single camera fills the whole canvas, at four times the pixels that it would have in a quarter.

Does not resize (`rules.crop_and_resize` does) and reads no video.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import DataError, UsageError

# What the reference gives to classifier-free guidance as the prompt to steer away from.
NEGATIVE_PROMPT = (
    "Vibrant colors, overexposed, static, blurry details, text, subtitles, style, artwork, painting, image, still, "
    "grayscale, dull, worst quality, low quality, JPEG artifacts, ugly, mutilated, extra fingers, bad hands, bad face, "
    "deformed, disfigured, mutated limbs, fused fingers, stagnant image, cluttered background, three legs, many people "
    "in the background, walking backwards."
)
COUNT = ("no", "one", "two", "three", "four")
HELD = ("wrist", "hand", "gripper")  # roles of a camera that an arm carries
BODY = (*HELD, "head", "chest", "torso", "waist", "neck")  # roles that are a part of the robot

# By what a style wants in a place: words of a role, and sides, that cannot be meant.
CONTRADICTS = {
    "held": ("exterior", "head", "scene", "top", "front"),
    "fixed": HELD,
    "left": ("right", "center"),
    "right": ("left", "center"),
    "center": ("left", "right"),
}


@dataclass(frozen=True)
class Camera:
    """A camera as the mosaic needs it: `key` names its frames; role and side as in an embodiment file."""

    key: str
    role: str
    side: str = "none"


@dataclass(frozen=True)
class View:
    """A camera in a mosaic and what the prompt calls it."""

    key: str
    words: str


@dataclass(frozen=True)
class Cell:
    """A rectangle of units, half-open, with its place in words; black where `view` is None."""

    place: str
    rows: tuple[int, int]
    columns: tuple[int, int]
    view: View | None


@dataclass(frozen=True)
class Mosaic:
    """Cells in reading order, on a grid of (rows, columns) units, and the prompt with `{task}` for the instruction."""

    style: str
    grid: tuple[int, int]
    cells: tuple[Cell, ...]
    sentence: str

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(cell.view.key for cell in self.cells if cell.view)


@dataclass(frozen=True)
class ReferenceStyle:
    """Style and embodiment index that the reference uses for one of its robots."""

    style: str
    index: int


# The tags that the reference has a prompt for. Its projector table has more; all others end in an error there.
REFERENCE_STYLES = {
    "oxe_droid": ReferenceStyle("droid", 17),
    "agibot": ReferenceStyle("agibot", 26),
    "xdof": ReferenceStyle("agibot", 22),
    "yam": ReferenceStyle("yam", 32),
    "gr1_unified": ReferenceStyle("human", 24),
    "mecka_hands": ReferenceStyle("human", 27),
    "lapa": ReferenceStyle("human", 27),
}


def reference_style(tag: str) -> ReferenceStyle:
    """Style and index of a robot that the reference knows.

    Raises:
        UsageError: the reference has no prompt for the tag.
    """
    if tag not in REFERENCE_STYLES:
        raise UsageError(
            f"embodiment tag {tag!r}: the reference has no prompt for it. "
            f"Give one of {', '.join(REFERENCE_STYLES)}, or leave the style open to have one generated."
        )
    return REFERENCE_STYLES[tag]


def mosaic_for(cameras: Sequence[Camera], style: str | None = None) -> Mosaic:
    """The mosaic of a robot's cameras in their order.

    Args:
        style: one of `STYLES`; None generates `whole`, `stack` or `quad` by the number of cameras. The order that the
            reference's styles want: `droid` exterior left, exterior right, wrist; `agibot` head, left hand, right hand;
            `yam` top, left, right.

    Raises:
        UsageError: no such style, too few or too many cameras for it, a camera given twice, or one in the place of
            another.
    """
    name = style or ("whole", "stack", "quad", "quad")[min(max(len(cameras), 1), 4) - 1]
    if name not in STYLES:
        raise UsageError(f"mosaic style {name!r}: not known. Give one of: {', '.join(STYLES)}.")
    counts, build = STYLES[name]
    if len(cameras) not in counts:
        wanted = " or ".join(COUNT[n] for n in counts) + (" camera" if counts == (1,) else " cameras")
        given = ", ".join(c.key for c in cameras) or "none"
        raise UsageError(
            f"mosaic style {name!r} takes {wanted}, got {len(cameras)} ({given}). "
            "Mark the others `use: carry`, or name another style."
        )
    keys = [c.key for c in cameras]
    if twice := {k for k in keys if keys.count(k) > 1}:
        raise UsageError(f"camera {min(twice)!r} is given twice. Give each camera once.")
    return build(name, cameras)


def prompt(mosaic: Mosaic, instruction: str) -> str:
    """The text for the model: the instruction in lower case inside the mosaic's sentence, else as it was written.

    The reference first reads the instruction as a Python literal ("1e3" becomes "1000.0"); this does not.
    """
    return mosaic.sentence.replace("{task}", instruction.lower())


def unit_size(mosaic: Mosaic, canvas: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that every view is resized to for a canvas of (height, width).

    Raises:
        UsageError: the canvas does not divide into the mosaic's units.
    """
    if canvas[0] % mosaic.grid[0] or canvas[1] % mosaic.grid[1]:
        rows, columns = mosaic.grid
        raise UsageError(f"canvas {canvas[0]}x{canvas[1]}: not {rows}x{columns} equal parts. Give an even size.")
    return canvas[0] // mosaic.grid[0], canvas[1] // mosaic.grid[1]


def tile(frames: Mapping[str, Tensor | NDArray], mosaic: Mosaic) -> Tensor:
    """The views on one canvas.

    Args:
        frames: by camera key, each (T, h, w, 3) uint8 of the unit's size; other cameras than the mosaic's are ignored.

    Returns:
        (T, rows * h, columns * w, 3) uint8: (T, 2h, 2w, 3) for every style of the reference with several views.

    Raises:
        DataError: a view is missing, or differs from the first in type or shape.
    """
    views = {key: torch.as_tensor(frames[key]) for key in mosaic.keys if key in frames}
    if missing := [key for key in mosaic.keys if key not in views]:
        raise DataError(f"camera {missing[0]!r}: no frames (got {', '.join(frames) or 'none'}). Give every view's.")
    first = views[mosaic.keys[0]]
    for key, view in views.items():
        if view.dtype != torch.uint8 or view.ndim != 4 or view.shape[-1] != 3 or view.shape != first.shape:
            raise DataError(
                f"camera {key!r}: {view.dtype} {tuple(view.shape)}, but {mosaic.keys[0]!r} has {tuple(first.shape)}. "
                "Give uint8 (T, h, w, 3), all views resized alike."
            )
    length, height, width, _ = first.shape
    canvas = first.new_zeros(length, mosaic.grid[0] * height, mosaic.grid[1] * width, 3)
    for cell in mosaic.cells:
        if cell.view is None:
            continue
        (top, bottom), (left, right) = cell.rows, cell.columns
        view = views[cell.view.key].repeat_interleave(bottom - top, 1).repeat_interleave(right - left, 2)
        canvas[:, top * height : bottom * height, left * width : right * width] = view
    return canvas


def words(camera: Camera) -> str:
    """What a generated prompt calls a camera: `the camera view from the robot's left wrist`."""
    role = camera.role.replace("_", " ")
    name = role if camera.side == "none" else f"{camera.side} {role}"
    if any(part in role.split() for part in BODY):
        return f"the camera view from the robot's {name}"
    return f"the camera view from the {name} camera"


def _quarters(cameras: Sequence[Camera], called: Sequence[str], *, unused: str) -> tuple[Cell, ...]:
    """Quarters in reading order, the second camera at the bottom left as in the reference; without a fourth one, the
    last quarter is black and called `unused`.
    """
    views = [View(c.key, w) for c, w in zip(cameras, called, strict=True)]
    first, second, third, fourth = (*views, *([None] * (4 - len(views))))
    top = Cell("top-left view", (0, 1), (0, 1), first)
    bottom = Cell("bottom-left view", (1, 2), (0, 1), second)
    if third is None:
        return top, bottom, Cell("right half", (0, 2), (1, 2), None)
    right = Cell("top-right view", (0, 1), (1, 2), third)
    return top, right, bottom, Cell("bottom-right view" if fourth else unused, (1, 2), (1, 2), fourth)


def _top_and_two(cameras: Sequence[Camera], called: Sequence[str]) -> tuple[Cell, ...]:
    """The third camera across the top, the first two below it."""
    left, right, top = (View(c.key, w) for c, w in zip(cameras, called, strict=True))
    return (
        Cell("top view", (0, 1), (0, 2), top),
        Cell("bottom-left view", (1, 2), (0, 1), left),
        Cell("bottom-right view", (1, 2), (1, 2), right),
    )


def _quad(name: str, cameras: Sequence[Camera]) -> Mosaic:
    return _generated(name, (2, 2), _quarters(cameras, [words(c) for c in cameras], unused="bottom-right quarter"))


def _wide(name: str, cameras: Sequence[Camera]) -> Mosaic:
    return _generated(name, (2, 2), _top_and_two(cameras, [words(c) for c in cameras]))


def _stack(name: str, cameras: Sequence[Camera]) -> Mosaic:
    top, bottom = (View(c.key, words(c)) for c in cameras)
    return _generated(
        name, (2, 1), (Cell("top view", (0, 1), (0, 1), top), Cell("bottom view", (1, 2), (0, 1), bottom))
    )


def _whole(name: str, cameras: Sequence[Camera]) -> Mosaic:
    view = View(cameras[0].key, words(cameras[0]))
    sentence = f"A single view video shows that a robot {{task}} The video shows {view.words}. The robot {{task}}"
    return Mosaic(name, (1, 1), (Cell("whole canvas", (0, 1), (0, 1), view),), sentence)


def _human(name: str, cameras: Sequence[Camera]) -> Mosaic:
    whole = Cell("whole canvas", (0, 1), (0, 1), View(cameras[0].key, words(cameras[0])))
    return Mosaic(name, (1, 1), (whole,), "A single view video shows that a human {task}")


def _droid(name: str, cameras: Sequence[Camera]) -> Mosaic:
    _expect(name, cameras, ("fixed left", "fixed right", "held"))
    called = ("left exterior camera", "right exterior camera", "robot's wrist")
    cells = _top_and_two(cameras, [f"the camera view from the {c}" for c in called])
    # The reference trains with both exterior views; the sentence on a dropped one is in its prompt all the same.
    dropped = " During training, one of the two bottom exterior views may be a black screen (dropped view)."
    return Mosaic(name, (2, 2), cells, _sentence("three", cells, black="", after=dropped))


def _agibot(name: str, cameras: Sequence[Camera]) -> Mosaic:
    _expect(name, cameras, ("fixed center", "held left", "held right"))
    called = ("robot's head", "left hand", "right hand")
    words_of = [f"the camera view from the {c}" for c in called]
    cells = _quarters(cameras, words_of, unused="bottom-right view")
    return Mosaic(name, (2, 2), cells, _sentence("four", cells, black="a black screen (inactive view)"))


def _yam(name: str, cameras: Sequence[Camera]) -> Mosaic:
    _expect(name, cameras, ("center", "left", "right"))
    called = ("the top camera", "the left camera", "the right camera")
    cells = _quarters(cameras, called, unused="bottom-right view")
    return Mosaic(name, (2, 2), cells, _sentence("four", cells, black="a black screen"))


# How many cameras a style takes, and what builds it.
STYLES: dict[str, tuple[tuple[int, ...], Callable[[str, Sequence[Camera]], Mosaic]]] = {
    "whole": ((1,), _whole),
    "stack": ((2,), _stack),
    "quad": ((2, 3, 4), _quad),
    "wide": ((3,), _wide),
    "droid": ((3,), _droid),
    "agibot": ((3,), _agibot),
    "yam": ((3,), _yam),
    "human": ((1,), _human),
}


def _generated(name: str, grid: tuple[int, int], cells: tuple[Cell, ...]) -> Mosaic:
    count = COUNT[sum(cell.view is not None for cell in cells)]
    return Mosaic(name, grid, cells, _sentence(count, cells, black="a black screen (inactive view)"))


def _sentence(count: str, cells: tuple[Cell, ...], *, black: str, after: str = "") -> str:
    parts = [f"the {c.place} shows {c.view.words}" if c.view else f"the {c.place} is {black}" for c in cells]
    last = f"{', ' if len(parts) > 2 else ' '}and {parts.pop()}"
    shown = ", ".join(parts).removeprefix("the ") + last
    return (
        f"A multi-view video shows that a robot {{task}} The video is split into {count} views: The {shown}.{after} "
        "The robot {task}"
    )


def _expect(name: str, cameras: Sequence[Camera], wanted: tuple[str, ...]) -> None:
    """Refuse a camera whose role or side contradicts its place (`left`, `held right`); one with neither is believed."""
    for place, (camera, want) in enumerate(zip(cameras, wanted, strict=True), 1):
        parts = set(camera.role.split("_")) | ({camera.side} - {"none"})
        if parts & {odd for word in want.split() for odd in CONTRADICTS[word]}:
            raise UsageError(
                f"mosaic style {name!r}: camera {place} is {camera.key!r}, where a {want} camera belongs. "
                "Put the cameras in the style's order, or leave the style open."
            )
