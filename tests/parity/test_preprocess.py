"""Views, prompts and data rules against the reference's own outputs (fixture `preprocess`).

The reference's normalisers were given float32 statistics, its data pipeline float64 ones; so they are here. What its
LeRobot converter writes (`converter_outputs`) belongs to its reader: here only its statistics are compared.
Its cutting into shards (`shards_num_steps_per_shard_150`) has no counterpart here.
"""

import ast
from typing import Any

import pytest
import torch
from goldens import assert_close, golden, golden_json
from torch import Tensor

from adapt.backbones.dreamzero.rules import (
    Mode,
    Stats,
    absolute,
    crop_and_resize,
    denormalize,
    mix,
    normalize,
    pad,
    reference_chunks,
    relative,
    relative_rows,
    statistics,
)
from adapt.backbones.dreamzero.slots import BASES, mask, slot_map, to_base
from adapt.backbones.dreamzero.views import (
    NEGATIVE_PROMPT,
    REFERENCE_STYLES,
    Camera,
    Mosaic,
    mosaic_for,
    prompt,
    reference_style,
    tile,
)
from schemas.errors import DataError, UsageError

FACTS = golden_json("preprocess")
G = golden("preprocess")
DROID = (Camera("exterior_1", "exterior", "left"), Camera("exterior_2", "exterior", "right"), Camera("wrist", "wrist"))
CAMERAS = {
    "droid": DROID,
    "agibot": (Camera("head", "head"), Camera("hand_left", "hand", "left"), Camera("hand_right", "hand", "right")),
    "yam": (Camera("top", "top"), Camera("left", "wrist", "left"), Camera("right", "wrist", "right")),
    "human": (Camera("head", "head"),),
}
EPISODES = {e["episode"]: e for e in FACTS["dataset"]["episodes"]}
LANGUAGE = {e: [words for words, rows in ep["language"] for _ in range(rows)] for e, ep in EPISODES.items()}
NAMES = ("mean", "std", "min", "max", "q01", "q99")


def _stats(values: dict[str, Any], dtype: torch.dtype = torch.float32) -> Stats:
    return Stats(**{name: torch.tensor(values[name], dtype=dtype) for name in NAMES})


def _mosaic(tag: str) -> Mosaic:
    style = reference_style(tag).style
    return mosaic_for(CAMERAS[style], style)


@pytest.mark.parametrize(
    ("case", "mosaic"),
    [
        ("agibot", _mosaic("agibot")),
        ("xdof", _mosaic("xdof")),
        ("yam", _mosaic("yam")),
        ("oxe_droid", _mosaic("oxe_droid")),
        ("oxe_droid_odd", _mosaic("oxe_droid")),
        ("single", _mosaic("gr1_unified")),
        ("single", mosaic_for(CAMERAS["human"])),
        # Two views leave the reference's right half black, while its prompt goes on about three or four of them.
        ("two_view_oxe_droid", mosaic_for(DROID[:2], "quad")),
        ("two_view_yam", mosaic_for(CAMERAS["yam"][:2], "quad")),
    ],
)
def test_views_are_tiled_pixel_for_pixel_as_in_the_reference(case: str, mosaic: Mosaic) -> None:
    video = G[f"tiling/{case}/in.video_tvhwc"]
    order = [c.key for style in ("droid", "yam", "agibot") for c in CAMERAS[style] if c.key in mosaic.keys]
    frames = {key: video[:, view] for view, key in enumerate(order)}
    want = G[f"tiling/{case}/out.images_thwc"]
    assert len(order) == video.shape[1]
    assert torch.equal(tile(frames, mosaic), want)


def _as_literal(instruction: str) -> str:
    """What the reference makes of an instruction before it writes it into the prompt."""
    try:
        value = ast.literal_eval(instruction)
    except (ValueError, SyntaxError):
        return instruction
    return str(value[0] if isinstance(value, (list, tuple)) else value)


@pytest.mark.parametrize("name", FACTS["prompts"])
def test_prompts_are_the_references_word_for_word(name: str) -> None:
    tag, views, case = name.split("|")
    want = FACTS["prompts"][name]
    if tag not in REFERENCE_STYLES:
        assert "error" in want
        with pytest.raises(UsageError, match=f"{tag}.*has no prompt"):
            reference_style(tag)
        return
    mosaic = _mosaic(tag)
    if case == "empty_list_literal":  # the reference fails on it; here it is text like any other
        assert "IndexError" in want["error"]
        assert "robot []" in prompt(mosaic, "[]") or "human []" in prompt(mosaic, "[]")
        return
    if tag == "agibot" and views == "num_views=1":  # only this tag looks at the number of views
        assert "not supported" in want["error"]
        with pytest.raises(UsageError, match="takes three cameras, got 1"):
            mosaic_for(CAMERAS["agibot"][:1], "agibot")
        return
    assert prompt(mosaic, _as_literal(want["instruction"])) == want["prompt"]


def test_an_instruction_is_not_read_as_a_python_literal() -> None:
    differing = []
    for name, want in FACTS["prompts"].items():
        tag, _, case = name.split("|")
        if "error" not in want and prompt(_mosaic(tag), want["instruction"]) != want["prompt"]:
            differing.append(case)
    assert set(differing) == {"list_literal", "tuple_literal", "quoted_literal", "float_literal"}


def test_negative_prompt_and_embodiment_indices_are_the_references() -> None:
    assert FACTS["text_negative"] == NEGATIVE_PROMPT
    table = FACTS["embodiment_tag_to_projector_index"]
    assert {tag: style.index for tag, style in REFERENCE_STYLES.items()} == {
        tag: table[tag] for tag in REFERENCE_STYLES
    }


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("mode", ["q99", "min_max", "mean_std", "scale", "binary"])
def test_normalisers_and_their_inverses_equal_the_references(mode: Mode, precision: str) -> None:
    stats = _stats(FACTS["normalizer_statistics"])
    forward = G[f"norm/{mode}/forward_{precision}"]
    got = normalize(G[f"norm/in.x_{precision}"], stats, mode=mode)
    assert got.dtype == forward.dtype
    assert_close(got, forward, atol=1e-12, name=f"{mode} {precision}")
    if mode == "scale":
        with pytest.raises(UsageError, match="no inverse"):
            denormalize(forward, stats, mode=mode)
        return
    back = denormalize(forward, stats, mode=mode)
    assert_close(back, G[f"norm/{mode}/inverse_of_forward_{precision}"], atol=1e-12, name=f"{mode} back")
    if mode != "binary":
        assert_close(denormalize(G["norm/in.z_f64"], stats, mode=mode), G[f"norm/{mode}/inverse_of_z"], atol=1e-12)


@pytest.mark.parametrize("mode", ["q99", "min_max", "mean_std"])
def test_normalisers_with_statistics_of_each_step_equal_the_references(mode: Mode) -> None:
    stats, values = _stats(FACTS["per_horizon_statistics"]), G["norm_per_horizon/in.x"]
    assert_close(normalize(values, stats, mode=mode), G[f"norm_per_horizon/{mode}/forward"], atol=1e-12)
    assert_close(denormalize(values, stats, mode=mode), G[f"norm_per_horizon/{mode}/inverse"], atol=1e-12)


@pytest.mark.parametrize("tag", ["agibot", "oxe_droid", "yam"])
def test_padding_and_its_masks_equal_the_references(tag: str) -> None:
    for what, width in (("state", 64), ("action", 32)):
        values, real = pad(G[f"pad/{tag}/in.{what}"], width)
        assert torch.equal(values, G[f"pad/{tag}/out.{what}"])
        assert torch.equal(real, G[f"pad/{tag}/out.{what}_mask"])


@pytest.mark.parametrize(("tag", "name"), [("agibot", "agibot"), ("oxe_droid", "droid"), ("yam", "yam")])
def test_the_bases_own_robot_fills_its_channels_as_the_reference_pads_them(tag: str, name: str) -> None:
    slots = slot_map(BASES[name], base=BASES[name])
    for what, own, width in (("state", slots.state, 64), ("action", slots.action, 32)):
        assert torch.equal(to_base(G[f"pad/{tag}/in.{what}"], own, width), G[f"pad/{tag}/out.{what}"])
        assert torch.equal(mask(own, width).expand_as(G[f"pad/{tag}/out.{what}_mask"]), G[f"pad/{tag}/out.{what}_mask"])


def test_what_is_wider_than_the_base_is_refused_where_the_reference_cuts_states_off() -> None:
    wide = FACTS["state_wider_than_max"]
    assert wide["out_shape"][-1] == wide["max_state_dim"]  # the reference: cut off without a word
    with pytest.raises(DataError, match="9 channels, but the base has 6"):
        pad(torch.zeros(2, wide["in_dim"]), wide["max_state_dim"])
    assert "AssertionError" in FACTS["action_wider_than_max"]
    with pytest.raises(DataError, match="40 channels, but the base has 32"):
        pad(torch.zeros(24, 40), 32)


def test_no_state_and_no_action_pad_to_nothing_real() -> None:
    want = FACTS["missing_state_action"]
    for rows, width, what in ((1, 64, "state"), (24, 32, "action")):
        values, real = pad(torch.zeros(rows, 0), width)
        assert list(values.shape) == want[f"{what}_shape"] and not values.any()
        assert bool(real.any()) == want[f"{what}_mask_any"]


def test_action_rows_that_are_no_whole_chunks_are_refused_here_and_there() -> None:
    assert "action_horizon=24" in FACTS["action_len_not_multiple_of_24"]
    with pytest.raises(DataError, match="24 action rows to a state row"):
        relative(torch.zeros(25, 4), torch.zeros(1, 4))


def test_evaluation_frames_are_cropped_and_resized_to_the_last_bit() -> None:
    frames = G["eval_video/in"]
    assert torch.equal(crop_and_resize(frames, None), G["eval_video/out_crop_only"])
    assert torch.equal(crop_and_resize(frames, (16, 24)), G["eval_video/out"])


@pytest.mark.parametrize("chunks", ["1", "4", "5"])
def test_windows_are_the_references_for_every_episode_and_start(chunks: str) -> None:
    facts = FACTS["dataset"]["sampling"][chunks]
    seen = 0
    for episode, start, want in facts["samples"]:
        anchors, frames = _window(episode, start, int(chunks), reference_edge=True)
        if isinstance(want, str):  # the reference raises IndexError
            assert (anchors, frames) == ((), ())
        else:
            assert (list(anchors), list(frames)) == (want["state"], want["video"]), (episode, start)
        seen += 1
    for episode, counts in facts["num_chunks_per_anchor"].items():
        got = [len(_window(int(episode), s, int(chunks), reference_edge=True)[0]) for s in range(len(counts))]
        assert got == [max(count, 0) for count in counts]
        assert [s for s, n in enumerate(got) if n == 0] == facts["error_anchors"][episode]
        assert not facts["skipped_anchors"][episode]
    assert seen == len(facts["samples"]) == 301


def test_without_the_edge_defect_a_window_differs_only_where_the_reference_drops_a_chunk() -> None:
    for episode, info in EPISODES.items():
        for start in range(info["length"]):
            theirs, _ = _window(episode, start, 4, reference_edge=True)
            ours, frames = _window(episode, start, 4)
            assert all(a + 24 < info["length"] for a in ours)
            assert len(frames) == (8 * len(ours) + 1 if ours else 0)
            drops = (info["length"] - 24 - start) % 24 == 0  # an anchor's closing frame is the row after the last
            assert set(theirs) <= set(ours) and (drops or theirs == ours), (episode, start)
    assert _window(6, 176, 1, reference_edge=True) == ((), ())
    assert _window(6, 176, 1) == ((152,), (*range(152, 176, 3), 176))


def _window(episode: int, start: int, chunks: int, **edge: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    length, said = EPISODES[episode]["length"], LANGUAGE[episode].__getitem__
    return reference_chunks(length, start=start, language_at=said, chunks=chunks, **edge)


def _joints() -> tuple[list[Tensor], list[Tensor]]:
    actions = [G[f"dataset/ep{e}/action"][:, :7] for e in EPISODES]
    return actions, [G[f"dataset/ep{e}/state"][:, :7] for e in EPISODES]


def _assert_same(got: Stats, want: dict[str, Any], *, atol: float) -> None:
    for name in NAMES:
        assert_close(getattr(got, name), torch.tensor(want[name], dtype=torch.float64), atol=atol, name=name)


def test_relative_statistics_equal_the_references_pooled_and_of_each_step() -> None:
    rows = torch.cat([relative_rows(a, s) for a, s in zip(*_joints(), strict=True)])
    pooled = rows.flatten(0, 1)
    assert len(pooled) == FACTS["relative_stats_sample_counts"]["dataset_class"]
    _assert_same(statistics(pooled), FACTS["relative_stats_from_dataset_class"]["joint_position"], atol=1e-6)
    steps = FACTS["relative_stats_per_horizon_from_dataset_class"]["joint_position"]
    _assert_same(statistics(rows), steps, atol=1e-6)


def test_the_converters_relative_statistics_leave_out_each_episodes_last_anchor() -> None:
    pairs = zip(*_joints(), strict=True)
    rows = torch.cat([relative_rows(a.double(), s.double())[:-1] for a, s in pairs]).flatten(0, 1)
    assert len(rows) == FACTS["relative_stats_sample_counts"]["converter"]
    want = FACTS["converter_outputs"]["relative_stats_dreamzero.json"]["joint_position"]
    _assert_same(statistics(rows), want, atol=1e-12)
    theirs = FACTS["relative_stats_from_dataset_class"]["joint_position"]
    apart = {n: max(abs(a - b) for a, b in zip(want[n], theirs[n], strict=True)) for n in NAMES}
    assert apart == pytest.approx(FACTS["relative_stats_max_abs_diff_dataset_vs_converter"])


@pytest.mark.parametrize(("column", "what"), [("observation.state", "state"), ("action", "action")])
def test_absolute_statistics_equal_the_references_in_both_precisions(column: str, what: str) -> None:
    rows = torch.cat([G[f"dataset/ep{e}/{what}"] for e in EPISODES])
    _assert_same(statistics(rows), FACTS["stats_from_dataset_class_float32"][column], atol=2e-5)
    _assert_same(statistics(rows.double()), FACTS["converter_outputs"]["stats.json"][column], atol=1e-12)


@pytest.mark.parametrize("quantiles", ["min_max", "weighted_average"])
def test_statistics_of_a_mixture_equal_the_references(quantiles: Any) -> None:
    facts = FACTS["mixture_statistics"]
    parts = [_stats(part["joint"], torch.float64) for part in facts["inputs"]]
    _assert_same(mix(parts, facts["weights"], quantiles=quantiles), facts[quantiles]["joint"], atol=1e-12)


def test_a_whole_sample_is_rebuilt_from_raw_rows_and_frames() -> None:
    sample, about = "sample/ep1_anchor24", FACTS["dataset"]["sample"]
    episode = about["episode"]
    anchors, frames = _window(episode, about["anchor"], 4)
    state_rows = G[f"dataset/ep{episode}/state"].double()[list(anchors)]
    action_rows = G[f"dataset/ep{episode}/action"].double()[[a + i for a in anchors for i in range(24)]]
    assert len(frames) == 33

    joints, grip = state_rows[:, :7], state_rows[:, 7:]
    moves = relative(action_rows[:, :7], joints)
    assert torch.equal(joints, G[f"{sample}/raw.state.joint_position"])
    assert torch.equal(grip, G[f"{sample}/raw.state.gripper_position"])
    assert torch.equal(moves, G[f"{sample}/raw.action.joint_position"])
    assert torch.equal(action_rows[:, 7:], G[f"{sample}/raw.action.gripper_position"])
    assert_close(absolute(moves, joints), action_rows[:, :7], atol=1e-12)

    stats = FACTS["dataset"]["metadata_statistics"]["statistics"]
    for what, parts, width in (("state", (joints, grip), 64), ("action", (moves, action_rows[:, 7:]), 32)):
        named = zip(("joint_position", "gripper_position"), parts, strict=True)
        scaled = [normalize(rows, _stats(stats[what][name], torch.float64), mode="q99") for name, rows in named]
        values, real = pad(torch.cat(scaled, -1), width)
        assert_close(values, G[f"{sample}/out.{what}"], atol=1e-12, name=what)
        assert torch.equal(real, G[f"{sample}/out.{what}_mask"])

    # This sample was made without the crop; the evaluation frames above have it.
    keys = ("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left")
    video = {
        camera.key: crop_and_resize(G[f"{sample}/raw.video.{key}"], tuple(about["resize_hw"]), crop=1.0)
        for camera, key in zip(DROID, keys, strict=True)
    }
    assert torch.equal(tile(video, _mosaic("oxe_droid")), G[f"{sample}/out.images"])
    assert about["keys"]["text"] == LANGUAGE[episode][about["anchor"]]
    assert about["keys"]["text_negative"] == NEGATIVE_PROMPT


def test_what_a_sample_carries_for_older_models_is_empty() -> None:
    """No counterpart here; were one of these filled, a model trained on it would have seen more than we give."""
    sample = "sample/ep1_anchor24/out"
    nothing, unreal = pad(torch.zeros(96, 0, dtype=torch.float64), 32)
    assert torch.equal(G[f"{sample}.lapa_action"], nothing)
    assert torch.equal(G[f"{sample}.lapa_action_mask"], unreal)
    assert torch.equal(G[f"{sample}.segmentation_target"], torch.zeros(2, dtype=torch.float64))
    assert torch.equal(G[f"{sample}.segmentation_target_mask"], torch.zeros(1, dtype=torch.float64))
    flags = {
        name: bool(G[f"{sample}.{name}"]) for name in ("has_real_action", "has_lapa_action", "is_cotrain_instance")
    }
    assert flags == {"has_real_action": True, "has_lapa_action": False, "is_cotrain_instance": False}
