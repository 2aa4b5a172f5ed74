"""What the transformer's parity tests share: a fixture's model, its forward pass, and the reference's own masks."""

from typing import Any

import torch
from goldens import Golden, dit_weights, golden, golden_json
from torch import Tensor

from adapt.backbones.dreamzero.attention import Attend, Packing, Plan, pack, sequences
from adapt.backbones.dreamzero.config import DreamZeroConfig
from adapt.backbones.dreamzero.layout import Layout
from adapt.backbones.dreamzero.model import DreamZeroDiT, Output, build

WEIGHTS = {"i2v": "dit_weights_i2v", "ti2v": "dit_weights_ti2v"}


def config_of(constructor: dict[str, Any]) -> DreamZeroConfig:
    """Our sizes from the reference constructor's."""
    c = constructor
    return DreamZeroConfig(
        flavour=c["model_type"],
        dim=c["dim"],
        ffn_dim=c["ffn_dim"],
        heads=c["num_heads"],
        layers=c["num_layers"],
        in_dim=c["in_dim"],
        out_dim=c["out_dim"],
        patch=tuple(c["patch_size"]),
        freq_dim=c["freq_dim"],
        text_dim=c["text_dim"],
        text_len=c["text_len"],
        eps=c["eps"],
        action_dim=c["action_dim"],
        state_dim=c["max_state_dim"],
        head_width=c["hidden_size"],
        chunks=c["max_chunk_size"] if c["max_chunk_size"] > 0 else 4,
        latents_per_chunk=c["num_frame_per_block"],
        steps=c["num_action_per_block"],
        states_per_chunk=c["num_state_per_block"],
    )


def model_of(constructor: dict[str, Any], *, dtype: torch.dtype = torch.float32) -> DreamZeroDiT:
    model = build(config_of(constructor), device="cpu")
    model.load_state_dict(dit_weights(WEIGHTS[constructor["model_type"]]))
    return model.to(dtype)


def clip_features(batch: int) -> Tensor:
    return golden("dit_clip_feature")["clip_feature"][:batch]


def case(name: str) -> tuple[dict[str, Any], Golden]:
    """A training case's facts, and its tensors."""
    facts = golden_json("dit_train")["cases"][name]
    return facts, golden(f"dit_train_{name}")


def forward(model: DreamZeroDiT, facts: dict[str, Any], g: Golden) -> Output:
    """The forward pass of a training case, in the model's dtype."""
    dtype = model.patch_embedding.weight.dtype

    def get(key: str) -> Tensor | None:
        return g[key].to(dtype) if key in g else None

    with_action = facts["with_action"]
    return model(
        get("in.noisy_latents"),
        g["in.timestep"],
        get("in.context"),
        clip=clip_features(facts["batch"]).to(dtype),
        y=get("in.y"),
        clean=get("in.clean_latents") if facts["teacher_forcing"] else None,
        state=get("in.state") if with_action else None,
        action=get("in.action") if with_action else None,
        action_timestep=get("in.timestep_action") if with_action else None,
    )


def loss_of(out: Output, g: Golden) -> Tensor:
    """The scalar whose gradients the fixtures hold."""
    loss = (out.video * g["in.cot_video"].to(out.video.dtype)).mean()
    if out.action is not None:
        loss = loss + (out.action * g["in.cot_action"].to(out.action.dtype)).mean()
    return loss


# The reference's masks where we differ. Each is an override of the plan: nothing of them is in the product.


def masked(mask: Tensor, *, zero_rows: int = 0) -> Plan:
    """Attention under an (N, N) mask; the first `zero_rows` answers are zero, as memory that was never written."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
        return torch.cat((torch.zeros_like(out[:, :zero_rows]), out[:, zero_rows:]), dim=1)

    return Plan(attend, attend)


def by_sequence(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
    """What one varlen call computes, sequence by sequence: that kernel needs a GPU."""
    rows, keys, values = q.flatten(0, 1)[packing.queries], k.flatten(0, 1)[packing.keys], v.flatten(0, 1)[packing.keys]
    parts = []
    for asked, seen in sequences(packing):
        one = (t.transpose(0, 1)[None] for t in (rows[asked], keys[seen], values[seen]))
        parts.append(torch.nn.functional.scaled_dot_product_attention(*one)[0].transpose(0, 1))
    return torch.cat(parts)[packing.back].unflatten(0, (len(q), -1))


def packed(layout: Layout) -> Plan:
    """The varlen backend's packing of a layout, without its kernel."""

    def attend(queries: tuple[int, int]) -> Attend:
        def answer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return by_sequence(q, k, v, pack(layout, queries, q.device, (True,) * len(q)))

        return answer

    return Plan(attend((layout.asking, layout.tokens)), attend(layout.live))


def token_causal(tokens: int) -> Tensor:
    return torch.ones(tokens, tokens, dtype=torch.bool).tril()
