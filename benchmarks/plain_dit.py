"""DreamZero's transformer written the straightforward way, on the weights of ours: what `train_step` compares with.

Same mathematics, and the cost of a plain reading of it: a time embedding and six modulation rows for every token, the
whole window although its last clean chunk reaches no output, rotation by complex numbers in float64, and for every
chunk one attention call each for its clean video, noisy video, actions and states, their keys put together anew each
time. Every block is recomputed in the backward pass unless it is told otherwise.

Takes whole training windows in which every sample has actions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from adapt.backbones.dreamzero.block import Block, Context, CrossAttention
from adapt.backbones.dreamzero.config import DreamZeroConfig
from adapt.backbones.dreamzero.layers import RMSNorm, cosine_sine, unpatch
from adapt.backbones.dreamzero.model import DreamZeroDiT, Output
from adapt.backbones.dreamzero.rope import BASE, axis_pairs
from schemas.errors import UsageError


def plain_forward(
    model: DreamZeroDiT,
    noisy: Tensor,
    timestep: Tensor,
    context: Tensor,
    *,
    clip: Tensor | None,
    y: Tensor | None,
    clean: Tensor,
    state: Tensor,
    action: Tensor,
    action_timestep: Tensor,
    has_action: tuple[bool, ...],
    recompute: bool = True,
) -> Output:
    """Velocities of a whole window; arguments as those of `DreamZeroDiT.forward`, with one timestep to an action row.

    Args:
        recompute: every block in the backward pass, as the reference does; else all activations are kept.

    Raises:
        UsageError: a sample has no actions.
    """
    if not all(has_action):
        raise UsageError("plain transformer: a sample has no actions. Give a batch in which all have.")
    config, dtype = model.config, model.patch_embedding.weight.dtype
    rows, columns = noisy.shape[3] // config.patch[1], noisy.shape[4] // config.patch[2]
    frame_tokens, video_tokens = rows * columns, noisy.shape[2] * rows * columns
    x = torch.cat(
        (
            _patches(model, clean, y),
            _patches(model, noisy, y),
            model.action_encoder(action, action_timestep).to(dtype),
            model.state_encoder(state).to(dtype),
        ),
        dim=1,
    )
    times = timestep.repeat_interleave(frame_tokens, 1)
    state_times = action_timestep[:, :: config.steps]
    token_times = torch.cat((torch.zeros_like(times), times, action_timestep, state_times), dim=1)
    embedded = model.time_embedding(cosine_sine(token_times, config.freq_dim).to(dtype))
    modulation = model.time_projection(embedded).unflatten(-1, (6, -1))
    words = model.embed_context(context, clip)
    turns = _turns(config, noisy.shape[2], (rows, columns), action.shape[1], state.shape[1], x.device)
    again = recompute and torch.is_grad_enabled()
    for block in model.blocks:
        arguments = (block, x, modulation, words, turns, config, frame_tokens, video_tokens)
        x = checkpoint(_block, *arguments, use_reentrant=False) if again else _block(*arguments)
    seen = slice(video_tokens, 2 * video_tokens)
    shift, scale = (model.head.modulation[:, None] + _wide(embedded[:, seen, None])).unbind(2)
    hidden = (_wide(_layer_norm(x[:, seen], config.eps)) * (1 + scale) + shift).to(dtype)
    video = unpatch(model.head.head(hidden), config.patch, (rows, columns))
    return Output(video, model.action_decoder(x[:, 2 * video_tokens : 2 * video_tokens + action.shape[1]]))


def _patches(model: DreamZeroDiT, latents: Tensor, y: Tensor | None) -> Tensor:
    """(B, F * rows * columns, D)."""
    weight = model.patch_embedding.weight
    inputs = latents.to(weight.dtype) if y is None else torch.cat((latents.to(weight.dtype), y.to(weight.dtype)), dim=1)
    return F.conv3d(inputs, weight, model.patch_embedding.bias, stride=model.config.patch).flatten(2).transpose(1, 2)


def _turns(
    config: DreamZeroConfig, frames: int, grid: tuple[int, int], actions: int, states: int, device: torch.device
) -> Tensor:
    """(N, head width / 2) complex128, one rotation to each pair of each token."""

    def axis(count: int, pairs: int) -> Tensor:
        frequency = BASE ** -(torch.arange(pairs, dtype=torch.float64, device=device) / pairs)
        return torch.outer(torch.arange(count, dtype=torch.float64, device=device), frequency)

    shape = (frames, *grid)
    time, row, column = (axis(n, pairs) for n, pairs in zip(shape, axis_pairs(config.head_dim), strict=True))
    video = torch.cat(
        (
            time[:, None, None].expand(*shape, -1),
            row[None, :, None].expand(*shape, -1),
            column[None, None].expand(*shape, -1),
        ),
        dim=-1,
    ).flatten(0, 2)
    pairs = config.head_dim // 2
    angles = torch.cat((video, video, axis(actions, pairs), axis(states, pairs)))
    return torch.polar(torch.ones_like(angles), angles)


def _block(
    block: Block,
    x: Tensor,
    modulation: Tensor,
    words: Context,
    turns: Tensor,
    config: DreamZeroConfig,
    frame_tokens: int,
    video_tokens: int,
) -> Tensor:
    """`modulation` is (B, N, 6, D)."""
    rows = (block.modulation + _wide(modulation)).unbind(2)
    attention = block.self_attn
    hidden = (_wide(_layer_norm(x, config.eps)) * (1 + rows[1]) + rows[0]).to(x.dtype)
    q = _rotate(_heads(_rms_norm(attention.q(hidden), attention.norm_q), config), turns)
    k = _rotate(_heads(_rms_norm(attention.k(hidden), attention.norm_k), config), turns)
    v = _heads(attention.v(hidden), config)
    update = attention.o(_chunk_by_chunk(q, k, v, config, frame_tokens, video_tokens).flatten(2))
    x = (_wide(x) + _wide(update) * rows[2]).to(x.dtype)
    x = x + _cross(block.cross_attn, block.norm3(x), words, config)
    update = block.ffn((_wide(_layer_norm(x, config.eps)) * (1 + rows[4]) + rows[3]).to(x.dtype))
    return (_wide(x) + _wide(update) * rows[5]).to(x.dtype)


def _chunk_by_chunk(
    q: Tensor, k: Tensor, v: Tensor, config: DreamZeroConfig, frame_tokens: int, video_tokens: int
) -> Tensor:
    """Self-attention of [clean | noisy | actions | states], (B, N, heads, head width), a few calls to a chunk."""
    chunks = (video_tokens // frame_tokens - 1) // config.latents_per_chunk
    sizes = (video_tokens, video_tokens, chunks * config.steps, chunks * config.states_per_chunk)
    parts = [tensor.split(sizes, dim=1) for tensor in (q, k, v)]
    answers: list[list[Tensor]] = [[], [], [], []]
    for kind in (0, 1):
        answers[kind].append(_attend(*(part[kind][:, :frame_tokens] for part in parts)))
    for chunk in range(chunks):
        start = (1 + chunk * config.latents_per_chunk) * frame_tokens
        video = slice(start, start + config.latents_per_chunk * frame_tokens)
        action = slice(chunk * config.steps, (chunk + 1) * config.steps)
        state = slice(chunk * config.states_per_chunk, (chunk + 1) * config.states_per_chunk)
        answers[0].append(
            _attend(parts[0][0][:, video], parts[1][0][:, : video.stop], parts[2][0][:, : video.stop]),
        )
        for kind, asked in ((1, video), (2, action)):
            keys, values = (
                torch.cat((p[0][:, :start], p[1][:, video], p[2][:, action], p[3][:, state]), dim=1) for p in parts[1:]
            )
            answers[kind].append(_attend(parts[0][kind][:, asked], keys, values))
        answers[3].append(_attend(*(part[3][:, state] for part in parts)))
    return torch.cat([torch.cat(kind, dim=1) for kind in answers], dim=1)


def _cross(module: CrossAttention, x: Tensor, words: Context, config: DreamZeroConfig) -> Tensor:
    q = _heads(_rms_norm(module.q(x), module.norm_q), config)
    k = _heads(_rms_norm(module.k(words.text), module.norm_k), config)
    out = _attend(q, k, _heads(module.v(words.text), config))
    if words.image is not None:
        k = _heads(_rms_norm(module.k_img(words.image), module.norm_k_img), config)
        out = out + _attend(q, k, _heads(module.v_img(words.image), config))
    return module.o(out.flatten(2))


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)


def _heads(x: Tensor, config: DreamZeroConfig) -> Tensor:
    return x.unflatten(2, (config.heads, -1))


def _rotate(x: Tensor, turns: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns[:, None]).flatten(-2).to(x.dtype)


def _rms_norm(x: Tensor, norm: RMSNorm) -> Tensor:
    wide = _wide(x)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.eps)).to(x.dtype) * norm.weight


def _layer_norm(x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(_wide(x), x.shape[-1:], eps=eps).to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    """At least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
