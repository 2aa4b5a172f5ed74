"""The mosaic, its sentence and the preview. Pixel and word parity with the reference is in tests/parity."""

import ast
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from adapt.backbones.dreamzero import preview, rules, slots, timebase, views
from adapt.backbones.dreamzero.preview import preview_png
from adapt.backbones.dreamzero.rules import crop_and_resize
from adapt.backbones.dreamzero.views import STYLES, Camera, Mosaic, mosaic_for, prompt, tile, unit_size, words
from schemas.embodiment import load_embodiment
from schemas.errors import DataError, UsageError

HEAD, LEFT, RIGHT = (
    Camera("head", "head"),
    Camera("wrist_left", "wrist", "left"),
    Camera("wrist_right", "wrist", "right"),
)
SCENE, WRIST = Camera("scene", "scene"), Camera("wrist", "wrist")
EXTERIOR = (Camera("exterior_left", "exterior", "left"), Camera("exterior_right", "exterior", "right"))
EVERY_STYLE = [
    mosaic_for(cameras, style)
    for cameras, style in (
        ((HEAD,), None),
        ((HEAD,), "human"),
        ((SCENE, WRIST), None),
        ((SCENE, WRIST), "quad"),
        ((HEAD, LEFT, RIGHT), None),
        ((HEAD, LEFT, RIGHT), "agibot"),
        ((Camera("top", "top"), LEFT, RIGHT), "yam"),
        ((*EXTERIOR, WRIST), "droid"),
        ((*EXTERIOR, WRIST), "wide"),
        ((HEAD, LEFT, RIGHT, SCENE), None),
    )
]


def _painted(mosaic: Mosaic, height: int = 2, width: int = 3) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """A plain frame of its own grey for each camera."""
    grey = {key: 50 * i + 50 for i, key in enumerate(sorted(mosaic.keys))}
    return {key: torch.full((1, height, width, 3), g, dtype=torch.uint8) for key, g in grey.items()}, grey


@pytest.mark.parametrize("mosaic", EVERY_STYLE, ids=lambda m: f"{m.style}-{len(m.keys)}")
def test_every_pixel_belongs_to_the_camera_that_its_cell_names(mosaic: Mosaic) -> None:
    frames, grey = _painted(mosaic)
    picture = tile(frames, mosaic)[0, :, :, 0]
    seen = torch.zeros_like(picture, dtype=torch.int64)
    for cell in mosaic.cells:
        (top, bottom), (left, right) = cell.rows, cell.columns
        area = picture[top * 2 : bottom * 2, left * 3 : right * 3]
        seen[top * 2 : bottom * 2, left * 3 : right * 3] += 1
        assert (area == (grey[cell.view.key] if cell.view else 0)).all(), cell.place
        for name, is_there in (
            ("top", bottom == 1),
            ("bottom", top == 1),
            ("left", right == 1 < mosaic.grid[1]),
            ("right", left == 1),
        ):
            assert not (name in cell.place.replace("-", " ").split() and not is_there), cell
    assert (seen == 1).all(), "cells overlap or leave a gap"


@pytest.mark.parametrize("mosaic", [m for m in EVERY_STYLE if m.style in ("quad", "stack", "wide", "whole")])
def test_a_generated_sentence_names_exactly_what_the_pixels_show(mosaic: Mosaic) -> None:
    text = prompt(mosaic, "do it.")
    count = {1: "single view", 2: "split into two", 3: "split into three", 4: "split into four"}[len(mosaic.keys)]
    assert count in text
    assert text.count("black screen") == sum(cell.view is None for cell in mosaic.cells)
    for cell in mosaic.cells:
        if len(mosaic.cells) > 1:
            assert f"{cell.place} {'shows ' + cell.view.words if cell.view else 'is a black screen'}" in text
        elif cell.view:
            assert f"The video shows {cell.view.words}." in text


@pytest.mark.parametrize(
    ("camera", "wanted"),
    [
        (HEAD, "the camera view from the robot's head"),
        (LEFT, "the camera view from the robot's left wrist"),
        (WRIST, "the camera view from the robot's wrist"),
        (EXTERIOR[0], "the camera view from the left exterior camera"),
        (Camera("over_shoulder", "over_shoulder"), "the camera view from the over shoulder camera"),
    ],
)
def test_words_follow_role_and_side(camera: Camera, wanted: str) -> None:
    assert words(camera) == wanted


def test_the_instruction_is_lowered_and_otherwise_left_alone() -> None:
    text = prompt(mosaic_for([HEAD]), "Put {task} 1e3\n['Cup']")
    assert text.startswith("A single view video shows that a robot put {task} 1e3\n['cup'] The video")
    assert text.endswith("The robot put {task} 1e3\n['cup']")


def test_a_single_camera_fills_the_whole_canvas_in_full_resolution() -> None:
    mosaic = mosaic_for([HEAD])
    assert unit_size(mosaic, (352, 640)) == (352, 640)
    camera = torch.randint(0, 256, (2, 480, 640, 3), dtype=torch.uint8)
    assert tile({"head": crop_and_resize(camera, (352, 640))}, mosaic).shape == (2, 352, 640, 3)


@pytest.mark.parametrize("mosaic", EVERY_STYLE, ids=lambda m: f"{m.style}-{len(m.keys)}")
@pytest.mark.parametrize("canvas", [(352, 640), (160, 320)])
def test_every_style_fills_the_canvas(mosaic: Mosaic, canvas: tuple[int, int]) -> None:
    frames, _ = _painted(mosaic, *unit_size(mosaic, canvas))
    assert tile(frames, mosaic).shape == (1, *canvas, 3)


def test_arrays_are_tiled_as_tensors_are() -> None:
    mosaic = mosaic_for((SCENE, WRIST))
    frames, _ = _painted(mosaic)
    assert torch.equal(tile({k: v.numpy() for k, v in frames.items()}, mosaic), tile(frames, mosaic))


@pytest.mark.parametrize(
    ("cameras", "style", "message"),
    [
        ((HEAD,), "mosaik", "mosaic style 'mosaik': not known. Give one of: whole"),
        ((), None, "'whole' takes one camera, got 0 \\(none\\)"),
        ((HEAD, LEFT), "droid", "'droid' takes three cameras, got 2"),
        ((HEAD, LEFT, RIGHT, SCENE, WRIST), None, "takes two or three or four cameras, got 5"),
        ((HEAD, LEFT), "human", "'human' takes one camera, got 2"),
        ((HEAD, HEAD), None, "camera 'head' is given twice"),
        ((WRIST, *EXTERIOR), "droid", "camera 1 is 'wrist', where a fixed left camera belongs"),
        ((EXTERIOR[1], EXTERIOR[0], WRIST), "droid", "camera 1 is 'exterior_right', where a fixed left"),
        ((HEAD, RIGHT, LEFT), "agibot", "camera 2 is 'wrist_right', where a held left"),
        ((LEFT, HEAD, RIGHT), "agibot", "camera 1 is 'wrist_left', where a fixed center"),
        ((Camera("top", "top"), RIGHT, LEFT), "yam", "camera 2 is 'wrist_right', where a left"),
    ],
)
def test_cameras_that_do_not_fit_a_style_are_refused(cameras: tuple[Camera, ...], style: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mosaic_for(cameras, style)


def test_cameras_without_role_or_side_are_taken_in_their_order() -> None:
    cameras = [Camera(f"cam{i}", f"cam{i}") for i in range(3)]
    assert mosaic_for(cameras, "droid").keys == ("cam2", "cam0", "cam1")
    assert mosaic_for(cameras, "agibot").keys == ("cam0", "cam2", "cam1")


def test_wrong_frames_are_refused_by_the_cameras_name() -> None:
    mosaic = mosaic_for((SCENE, WRIST))
    frames, _ = _painted(mosaic)
    with pytest.raises(DataError, match="camera 'wrist': no frames \\(got scene\\)"):
        tile({"scene": frames["scene"]}, mosaic)
    with pytest.raises(DataError, match="camera 'wrist': torch.uint8 \\(1, 2, 2, 3\\)"):
        tile(frames | {"wrist": frames["wrist"][:, :, :2]}, mosaic)
    with pytest.raises(DataError, match="camera 'scene': torch.float32"):
        tile({k: v.float() for k, v in frames.items()}, mosaic)
    with pytest.raises(UsageError, match="canvas 351x640: not 2x1 equal parts"):
        unit_size(mosaic, (351, 640))


def test_frames_of_unlike_cameras_are_resized_apart_and_the_corner_is_kept_in_the_frame() -> None:
    frames = torch.randint(0, 256, (3, 20, 40, 3), dtype=torch.uint8)
    cut = crop_and_resize(frames, None, corner=(1, 2))
    assert torch.equal(cut, frames[:, 1:20, 2:40])
    assert crop_and_resize(frames[:, :11], (8, 6)).shape == (3, 8, 6, 3)
    with pytest.raises(UsageError, match="crop corner 2, 0: 19x38 does not fit"):
        crop_and_resize(frames, (8, 8), corner=(2, 0))


@pytest.mark.parametrize(("robot", "style"), [("droid", "droid"), ("so101", None), ("g1_inspire", None)])
def test_cameras_of_an_embodiment_file_have_a_mosaic(robot: str, style: str | None) -> None:
    cameras = [Camera(c.key, c.role, c.side) for c in load_embodiment(robot).model_cameras]
    assert set(mosaic_for(cameras, style).keys) == {c.key for c in cameras}


def test_every_style_is_covered_here() -> None:
    assert {m.style for m in EVERY_STYLE} == set(STYLES)


def test_a_preview_shows_real_frames_and_the_prompt(droid_video: Path, g1: Path, tmp_path: Path) -> None:
    from PIL import Image

    from wamdata.video import read_frames

    keys = ("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left")
    frames = {key: read_frames(droid_video / f"{key}.mp4", [30]) for key in keys}
    cameras = [Camera(keys[0], "exterior", "left"), Camera(keys[1], "exterior", "right"), Camera(keys[2], "wrist")]
    mosaic = mosaic_for(cameras, "droid")
    preview_png(frames, mosaic, "Put $5 in the cup, then $3.", tmp_path / "droid.png")
    picture = torch.from_numpy(np.array(Image.open(tmp_path / "droid.png").convert("RGB")))
    white = (picture == 255).all(-1).float().mean(1)
    assert white[60:550].max() < 0.3, "the mosaic fills the middle"
    assert 0.5 < white[-110:].mean() < 0.99, "text on white lies below"

    film = next(g1.rglob("*.mp4"))
    head = read_frames(film, [0])
    preview_png({"head": head}, mosaic_for([HEAD]), "Pick it up.", tmp_path / "head.png")
    assert Image.open(tmp_path / "head.png").size[0] == 1000


@pytest.mark.parametrize("module", [preview, rules, slots, timebase, views], ids=lambda m: m.__name__.split(".")[-1])
def test_a_module_imports_nothing_heavy_before_it_must(module: ModuleType) -> None:
    tree = ast.parse(Path(module.__file__ or "").read_text())
    names = {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    house = {name for name in names if name.split(".")[0] in ("schemas", "wamdata", "adapt", "cli")}
    assert {name.split(".")[0] for name in names - house} <= sys.stdlib_module_names | {"torch", "numpy"}
    assert all(name == "schemas.errors" or name.startswith("adapt.backbones.dreamzero.") for name in house)
