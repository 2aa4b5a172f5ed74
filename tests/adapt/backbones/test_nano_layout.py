"""Who may look at whom, from the mask table of dreamzero.md 1.7 with dead parts trimmed."""

import torch

from adapt.backbones.nano.attention import _block_masks
from adapt.backbones.nano.config import NanoConfig, tiny
from adapt.backbones.nano.layout import Layout, inference, training


def test_the_default_sequence_has_280_tokens_in_four_kinds() -> None:
    layout = training(NanoConfig(state_width=26, action_width=26))
    sizes = {kind: sum(s.stop - s.start for s in layout.segments if s.kind == kind) for kind in KINDS}
    assert sizes == {"clean": 7 * 12, "noisy": 8 * 12, "action": 96, "state": 4}
    assert len(layout) == 280


def test_each_kind_of_query_sees_as_many_keys_as_the_table_says() -> None:
    config = NanoConfig(state_width=26, action_width=26)
    layout, frame = training(config), config.tokens_per_latent
    for segment in layout.segments:
        seen = layout.mask()[segment.start : segment.stop].sum(1)
        match segment.kind:
            case "clean":
                wanted = frame * (3 + 2 * segment.block)
            case "noisy" | "action":
                wanted = frame * (1 + 2 * segment.block) + 2 * frame + 24 + 1
            case "state":
                wanted = 1
        assert (seen == max(wanted, 1)).all(), segment


def test_clean_part_and_blocks_on_their_own_hold_the_whole_mask() -> None:
    layout = training(tiny())
    rebuilt = torch.zeros(len(layout), len(layout), dtype=torch.bool)
    clean = torch.arange(layout.num_clean)
    rebuilt[: layout.num_clean, : layout.num_clean] = layout.clean_mask()
    for block in range(tiny().chunks):
        own = layout.tokens(block)
        rebuilt[own[:, None], torch.cat([clean, own])] = layout.block_mask(block)
    assert torch.equal(rebuilt, layout.mask())


def test_masks_the_model_uses_are_the_training_layouts() -> None:
    config = tiny()
    layout = training(config)
    used = _block_masks(config, config.chunks - 1, tuple(range(config.chunks)))[2]
    for block in range(config.chunks):
        assert torch.equal(used[block] == 0, layout.block_mask(block))


def test_inference_layout_is_the_training_layout_cut_to_one_block() -> None:
    config = tiny()
    whole = training(config)
    for context in range(config.chunks):
        part: Layout = inference(config, context=context)
        kept = torch.cat([torch.arange(part.num_clean), whole.tokens(context)])
        assert torch.equal(part.mask(), whole.mask()[kept][:, kept])


KINDS = ("clean", "noisy", "action", "state")
