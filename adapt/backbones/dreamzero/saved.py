"""Bytes that one block keeps for its backward pass, from sizes alone: for planning, without torch.

Counted on operations as PyTorch runs them in eager mode on a base of 16 bits, with attention that keeps no scores. A
compiled block keeps what its compiler finds best. Does not know temporaries, nor what lies outside the blocks.
"""

from typing import Literal

from adapt.backbones.dreamzero.config import DreamZeroConfig

FLOAT32 = 4


def saved_bytes(
    config: DreamZeroConfig,
    tokens: int,
    kind: Literal["keep", "selective", "full", "offload"],
    rank: int,
    *,
    batch: int = 1,
    itemsize: int = 2,
    adapter_itemsize: int = 4,
    fused: bool = False,
) -> int:
    """Bytes on the device for one block but the last, which answers for fewer tokens.

    Of a block that is computed again (`full`, `offload`, and to a part `selective`) it is what stays between the two
    passes; while its turn is, it takes what `keep` says, on top.

    Args:
        tokens: of one sample, as the sequence has them after trimming.
        rank: of LoRA on the ten targets.
        itemsize: of the base and the tokens, 2.
        adapter_itemsize: 4 for float32 adapters, whose inputs peft casts and keeps.
        fused: LoRA as `fused` computes it.
    """
    match kind:
        case "offload":
            one = 0
        case "full":
            one = itemsize * tokens * config.dim
        case "selective":
            one = _selective(config, tokens, itemsize)
        case "keep":
            cast = adapter_itemsize != itemsize and not fused
            one = _everything(config, tokens, itemsize) + _adapters(
                config, tokens, rank, itemsize, adapter_itemsize, cast
            )
    return batch * one


def _selective(config: DreamZeroConfig, tokens: int, itemsize: int) -> int:
    """x, q, k, v, attention and its o, cross q, attention to words and its o, ffn.0; the context's keys and values."""
    context = 2 * (config.text_len + config.clip_tokens) * config.dim
    sums = 2 * config.heads * tokens  # of the exponentials, of both attentions
    return itemsize * (tokens * (9 * config.dim + config.ffn_dim) + context) + FLOAT32 * sums


def _everything(config: DreamZeroConfig, tokens: int, itemsize: int) -> int:
    """What autograd asks for, adapters' inner values apart.

    At full width: inputs of the norms and of the linears, q, k, v and output of each attention, and the three RMS
    norms' inputs in float32, in which a GPU's kernel may keep 16 bits.
    """
    context = 2 * (config.text_len + config.clip_tokens) * config.dim
    rows = config.chunks * (config.steps + config.states_per_chunk) + 2 * config.window_latents - 2
    narrow = tokens * (14 * config.dim + 2 * config.ffn_dim) + context
    wide = 3 * tokens * config.dim + config.text_len * config.dim + 4 * rows * config.dim
    statistics = tokens * (3 * config.heads + 9)
    return itemsize * narrow + FLOAT32 * (wide + statistics)


def _adapters(config: DreamZeroConfig, tokens: int, rank: int, itemsize: int, adapter_itemsize: int, cast: bool) -> int:
    """What LoRA adds: x A', and if peft casts inputs a copy for each adapter where one was shared before."""
    inner = rank * (8 * tokens + 2 * config.text_len)
    if not cast:
        return itemsize * inner
    copies = tokens * (7 * config.dim + config.ffn_dim) + 2 * config.text_len * config.dim
    spared = tokens * (4 * config.dim + config.ffn_dim)
    return adapter_itemsize * (copies + inner) - itemsize * spared
