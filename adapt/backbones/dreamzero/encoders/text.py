"""Instructions to embeddings: the encoder of umt5-xxl, from transformers, and its tokenizer.

Embeddings beyond a prompt's own length are zero, whatever else is in the batch. The public reference cuts every prompt
of a batch to the shortest one's length instead; a batch of one is the same in both.
"""

import functools
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from adapt.backbones.dreamzero.encoders.keymap import Source, fill, original_shapes
from schemas.errors import DataError

MAX_TOKENS = 512


@dataclass(frozen=True)
class TextConfig:
    """Sizes of a umt5 encoder. `dim` is the embedding's width, `attn_dim` that of all heads together."""

    vocab: int = 256384
    dim: int = 4096
    attn_dim: int = 4096
    ffn_dim: int = 10240
    heads: int = 64
    layers: int = 24
    buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6


UMT5_XXL = TextConfig()
TINY_UMT5 = replace(UMT5_XXL, vocab=64, dim=32, attn_dim=32, ffn_dim=48, heads=4, layers=2)

ENDS = {"shared": "token_embedding", "encoder.embed_tokens": "token_embedding", "encoder.final_layer_norm": "norm"}
BLOCK = {
    "layer.0.layer_norm": "norm1",
    "layer.0.SelfAttention.q": "attn.q",
    "layer.0.SelfAttention.k": "attn.k",
    "layer.0.SelfAttention.v": "attn.v",
    "layer.0.SelfAttention.o": "attn.o",
    "layer.0.SelfAttention.relative_attention_bias": "pos_embedding.embedding",
    "layer.1.layer_norm": "norm2",
    "layer.1.DenseReluDense.wi_0": "ffn.gate.0",
    "layer.1.DenseReluDense.wi_1": "ffn.fc1",
    "layer.1.DenseReluDense.wo": "ffn.fc2",
}


def shapes(config: TextConfig) -> dict[str, tuple[int, ...]]:
    """Original names and shapes of the text encoder's tensors."""
    return original_shapes(_empty(config), _source_of)


@dataclass(frozen=True)
class TextEncoder:
    """A frozen umt5 encoder. Dropping the last reference frees it."""

    model: nn.Module
    config: TextConfig

    @classmethod
    def load(
        cls,
        tensors: Mapping[str, Tensor],
        config: TextConfig,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ) -> Self:
        """The encoder with weights of original names (`blocks.0.attn.q.weight`, ...).

        Raises:
            DataError: a tensor is missing, of another shape, or not known.
        """
        model = _empty(config)
        fill(model, tensors, _source_of, what="text encoder", device=device, dtype=dtype)
        return cls(model, config)

    @torch.no_grad()
    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embeddings of a batch of prompts, zero where the prompt has no token.

        Args:
            ids: (B, L) int64 tokens.
            mask: (B, L), 1 at a token and 0 at padding.

        Returns:
            (B, L, dim) in the encoder's dtype.
        """
        mask = mask.to(self.model.device)
        hidden = self.model(input_ids=ids.to(self.model.device), attention_mask=mask).last_hidden_state
        return hidden.masked_fill(mask[..., None] == 0, 0)


def clean(text: str) -> str:
    """`text` with HTML entities resolved (twice) and runs of white space made one blank.

    Where ftfy is installed it first repairs wrongly decoded characters and straightens curly quotes, as in the
    reference; without it these stay as they are, and so get other tokens. Ordinary ASCII is the same either way.
    """
    try:
        import ftfy
    except ModuleNotFoundError:
        repaired = text
    else:
        repaired = ftfy.fix_text(text)
    return re.sub(r"\s+", " ", html.unescape(html.unescape(repaired))).strip()


def tokenize(texts: Sequence[str], tokenizer_path: Path, *, max_tokens: int = MAX_TOKENS) -> tuple[Tensor, Tensor]:
    """Tokens of cleaned prompts, each padded or cut to `max_tokens`, its end token included.

    Args:
        tokenizer_path: a folder with umt5-xxl's tokenizer files. Nothing is downloaded.

    Returns:
        ids: (B, max_tokens) int64.
        mask: (B, max_tokens) int64, 1 at a token and 0 at padding.

    Raises:
        DataError: there is no tokenizer in the folder.
    """
    tokenizer = _tokenizer(tokenizer_path)
    batch = tokenizer(
        [clean(text) for text in texts],
        padding="max_length",
        truncation=True,
        max_length=max_tokens,
        add_special_tokens=True,
        return_tensors="pt",
    )
    return batch["input_ids"], batch["attention_mask"]


@functools.cache
def _tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer

    if not path.is_dir():
        raise DataError(f"{path}: no such folder. Give the folder of umt5-xxl's tokenizer (tokenizer.json and others).")
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{path}: no umt5 tokenizer to read ({reason}). Put tokenizer.json there.") from error


def _empty(config: TextConfig) -> nn.Module:
    """The encoder on the meta device: shapes without weights."""
    from transformers import UMT5Config, UMT5EncoderModel

    sizes = UMT5Config(
        vocab_size=config.vocab,
        d_model=config.dim,
        d_kv=config.attn_dim // config.heads,
        d_ff=config.ffn_dim,
        num_layers=config.layers,
        num_heads=config.heads,
        relative_attention_num_buckets=config.buckets,
        relative_attention_max_distance=config.max_distance,
        layer_norm_epsilon=config.eps,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    with torch.device("meta"):
        return UMT5EncoderModel(sizes)


def _source_of(name: str) -> Source:
    """Which original tensor a parameter of transformers' encoder is."""
    module, _, leaf = name.rpartition(".")
    if module in ENDS:
        return Source(f"{ENDS[module]}.{leaf}")
    number, _, inner = module.removeprefix("encoder.block.").partition(".")
    return Source(f"blocks.{number}.{BLOCK[inner]}.{leaf}")
