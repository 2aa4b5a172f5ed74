"""The sequence's description: counts that can be checked by hand, and every attention built from it."""

import pytest
import torch
from parity.dit import by_sequence

from adapt.backbones.dreamzero.attention import attend, block_mask, pack, plan
from adapt.backbones.dreamzero.config import preset
from adapt.backbones.dreamzero.layout import Layout, decoding_layout, training_layout

CPU = torch.device("cpu")
TINY = preset("tiny")


def window(*, chunks: int = 4, trim: bool = True, frame_tokens: int = 6, **options: bool) -> Layout:
    return training_layout(TINY, frame_tokens=frame_tokens, chunks=chunks, trim=trim, **options)


def keys_seen(layout: Layout, kind: str, chunk: int) -> int:
    row = next(r for s, r in zip(layout.segments, layout.sees, strict=True) if (s.kind, s.chunk) == (kind, chunk))
    return sum(s.tokens for s, seen in zip(layout.segments, row, strict=True) if seen)


def test_the_14b_window_has_the_published_token_counts() -> None:
    config = preset("14b")
    assert config.frame_tokens == 880
    whole = training_layout(config, frame_tokens=880, chunks=4, trim=False)
    assert whole.tokens == 15_940
    assert training_layout(config, frame_tokens=880, chunks=4).tokens == 14_180
    five = preset("5b")
    assert five.frame_tokens == 50
    assert training_layout(five, frame_tokens=50, chunks=4, trim=False).tokens == 1000
    mini = preset("mini")
    assert training_layout(mini, frame_tokens=mini.frame_tokens, chunks=4, trim=False).tokens == 1180


@pytest.mark.parametrize("chunk", range(4))
def test_each_segment_sees_as_many_keys_as_measured_on_the_reference(chunk: int) -> None:
    layout, s = window(trim=False, frame_tokens=880), 880
    assert keys_seen(layout, "clean", chunk) == s * (3 + 2 * chunk)
    assert keys_seen(layout, "noisy", chunk) == s * (1 + 2 * chunk) + 2 * s + 24 + 1
    assert keys_seen(layout, "action", chunk) == keys_seen(layout, "noisy", chunk)
    assert keys_seen(layout, "state", chunk) == 1
    assert keys_seen(layout, "clean", -1) == keys_seen(layout, "noisy", -1) == s


def test_a_window_is_ten_attention_calls_beside_the_states() -> None:
    groups = window(trim=False).groups()
    assert len(groups) == 5 + 5 + 4  # clean, noisy with actions, states
    assert sum(stop - start for g in groups for start, stop in g.queries) == window(trim=False).tokens


def test_what_trimming_leaves_out_is_seen_by_nothing_that_is_left() -> None:
    whole = window(trim=False)
    last = {s.start for s in whole.segments if s.kind == "clean" and s.chunk == 3}
    for segment, row in zip(whole.segments, whole.sees, strict=True):
        seen = {s.start for s, truth in zip(whole.segments, row, strict=True) if truth}
        assert segment.start in last or not seen & last


def test_video_of_a_sample_without_actions_sees_no_register() -> None:
    layout = window().without_actions
    for segment, row in zip(layout.segments, layout.sees, strict=True):
        seen = {s.kind for s, truth in zip(layout.segments, row, strict=True) if truth}
        assert seen <= ({"clean", "noisy"} if segment.is_video else {segment.kind})
        assert seen  # a token that sees nothing would be NaN


LAYOUTS = {
    "whole": window(trim=False),
    "trimmed": window(),
    "one chunk": window(chunks=1),
    "no clean": window(clean=False),
    "no registers": window(registers=False),
    "longer than a flex block": window(frame_tokens=77),
    "decoding": decoding_layout(TINY, frame_tokens=6, cached_frames=3, first_frame=3, frames=2, registers=True),
    "decoding, reference": decoding_layout(
        TINY, frame_tokens=6, cached_frames=5, first_frame=5, frames=2, registers=True, state_sees_all=True
    ),
    "prefill": decoding_layout(TINY, frame_tokens=6, cached_frames=0, first_frame=0, frames=1, registers=False),
}
MIXES = {"all": (True,), "none": (False,), "mixed": (False, True, False)}


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("name", LAYOUTS)
def test_all_attentions_agree_forward_and_backward(name: str, mix: str) -> None:
    layout, has_action = LAYOUTS[name], MIXES[mix]
    torch.manual_seed(0)
    for queries in ((layout.asking, layout.tokens), layout.live):
        q = torch.randn(3, queries[1] - queries[0], 2, 8)
        k, v = torch.randn(2, 3, layout.tokens, 2, 8)
        answers = {}
        for backend in ("dense", "grouped", "flex"):
            inputs = [t.clone().requires_grad_() for t in (q, k, v)]
            out = attend(layout, queries, backend, CPU, has_action)(*inputs)
            out.square().sum().backward()
            answers[backend] = [out.detach(), *(t.grad for t in inputs)]
        for backend in ("grouped", "flex"):
            for got, want in zip(answers[backend], answers["dense"], strict=True):
                torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)
        packing = pack(layout, queries, CPU, has_action * 3 if len(has_action) == 1 else has_action)
        torch.testing.assert_close(by_sequence(q, k, v, packing), answers["dense"][0], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_block_mask_is_the_one_that_pytorch_makes_pair_by_pair(name: str) -> None:
    from torch.nn.attention.flex_attention import create_block_mask

    layout = LAYOUTS[name]
    queries = (layout.asking, layout.tokens)
    mine = block_mask(layout, queries, CPU, (True,))
    theirs = create_block_mask(mine.mask_mod, 1, 1, queries[1] - queries[0], layout.tokens, device="cpu")
    assert torch.equal(mine.to_dense(), theirs.to_dense())
    assert mine.shape == theirs.shape
    assert mine.full_kv_num_blocks.sum() == theirs.full_kv_num_blocks.sum()


def test_varlen_is_refused_off_the_gpu() -> None:
    with pytest.raises(ValueError, match="varlen.*CUDA only.*grouped"):
        plan(LAYOUTS["whole"], backend="varlen", device=CPU)
