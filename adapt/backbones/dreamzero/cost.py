"""What a DreamZero model costs, from its sizes alone: parameters, operations, bytes.

Closed forms over the trimmed layout, held by tests to operations counted on the meta device and to counted storages.
An operation is a multiply or an add. Attention's backward pass is 2.5 forward passes, as fused kernels do it: they
make the scores again. The frozen base has no gradients of weights, so its backward pass is one forward pass.
Does not know a GPU.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import NamedTuple

from adapt.backbones.dreamzero.config import DreamZeroConfig
from adapt.backbones.dreamzero.layout import Layout, Range, decoding_layout, training_layout
from adapt.backbones.dreamzero.names import (
    LORA_TARGETS,
    EncoderSizes,
    Shapes,
    dit_shapes,
    image_shapes,
    is_head,
    lora_only_shapes,
    text_shapes,
    vae_shapes,
)
from adapt.backbones.dreamzero.saved import saved_bytes
from adapt.planning.rung import Activations, Rung, Weights

ATTENTION_BACKWARD = 2.5
# Operations of the video VAEs for each pixel of the canvas: of the first frame, and of every latent frame (4 frames)
# after it. Counted on the meta device on diffusers' models; the attention in the middle makes it 0.3 % more at 4 times
# the pixels.
VAE_ENCODE = {"i2v": (6.741e6, 20.10e6), "ti2v": (4.646e6, 13.97e6)}
VAE_DECODE = {"i2v": (10.83e6, 33.86e6), "ti2v": (22.78e6, 73.58e6)}
# Bytes of a frozen weight, and of the scale that this many weights share; 0 is a scale for each output row.
STORED: dict[Weights, tuple[float, int | None]] = {
    "float32": (4, None),
    "bf16": (2, None),
    "fp8": (1, 0),
    "int8": (1, 0),
    "nf4": (0.5, 64),
}
MASTER, ADAM, ADAM_8BIT = 4, 8, 2 + 2 * 4 / 256  # bytes of a trained parameter; 8-bit moments share a scale by 256
# Bytes for each token and unit of width when a block's gated sum is taken: three float32 copies, the update and a
# gradient.
BLOCK_TEMPORARIES = 16
PREFETCHED = 2  # layers that FSDP holds whole at once
FETCHED = 2  # blocks' inputs that are on the GPU while the others lie in host memory


class Product(NamedTuple):
    """A linear layer on `rows` tokens; `name` is its ending in a block, `to_input` whether its input has a gradient."""

    name: str
    rows: int
    inside: int
    outside: int
    to_input: bool = True

    @property
    def flops(self) -> float:
        return 2.0 * self.rows * self.inside * self.outside


@dataclass(frozen=True)
class Flops:
    """Operations of one sample's training step.

    Args:
        forward, backward: what the result needs.
        recomputed: what is done again under the rung.
        linear: of all that is done, the part in the blocks' frozen linears.
    """

    forward: float
    backward: float
    recomputed: float
    linear: float

    @property
    def useful(self) -> float:
        return self.forward + self.backward

    @property
    def done(self) -> float:
        return self.useful + self.recomputed


@dataclass(frozen=True)
class DreamZeroCost:
    """Costs of one size with LoRA of one rank, micro-batch by micro-batch.

    Args:
        rank: of LoRA on `LORA_TARGETS`; 0 for none.
        has_average: whether a moving average of what is trained is kept.
        encoders: whether the frozen encoders stay in memory; a cache of latents lets them go.
    """

    config: DreamZeroConfig
    rank: int = 32
    has_average: bool = True
    encoders: bool = False

    # What the ladder asks for

    @property
    def blocks(self) -> int:
        return self.config.layers

    @property
    def tokens(self) -> int:
        """Tokens of a whole training window, trimmed."""
        return self._layout.tokens

    @property
    def trained(self) -> int:
        """Parameters that training changes: LoRA and the robot's heads."""
        if not self.rank:
            return self.parameters["heads"]
        return _trained(self.config, self.rank)

    @property
    def parameters(self) -> dict[str, int]:
        """Parameters by part; blocks, embeddings and heads are the transformer."""
        return _parameters(self.config)

    def flops(self, rung: Rung) -> Flops:
        """Of one sample of a training step."""
        parts = [self._block(last=last) for last in [False] * (self.config.layers - 1) + [True]]
        again = self._done_again(rung)
        forward = [attention + _sum(products) + self._lora(products)[0] for attention, products in parts]
        return Flops(
            forward=sum(forward) + self._outside(),
            backward=sum(map(self._block_backward, parts)) + self._outside_backward(),
            recomputed=sum(f for f, is_again in zip(forward, again, strict=True) if is_again),
            linear=sum(
                p.flops * (1 + p.to_input + is_again)
                for (_, products), is_again in zip(parts, again, strict=True)
                for p in products
            ),
        )

    def bytes(self, rung: Rung, *, ranks: int = 1) -> dict[str, int]:
        """Bytes on one GPU at the peak of a step, by part.

        Args:
            ranks: GPUs that the frozen base is divided over (FSDP2); 1 holds it whole.
        """
        micro, adam = rung.micro_batch, ADAM if rung.optimizer == "adamw" else ADAM_8BIT
        found = {
            "weights": self._weight_bytes_on(rung.weights, ranks),
            "LoRA and heads": self.trained * MASTER,
            "gradients": self.trained * MASTER,
            "optimizer": round(self.trained * adam),
            "moving average": self.trained * MASTER * self.has_average,
            "activations": self._activation_bytes(rung),
            "temporaries": self._temporary_bytes(rung) + self._unpacked_bytes(rung.weights),
            "latents and losses": micro * self._latent_bytes(),
        }
        return found | ({"encoders": self.encoder_bytes} if self.encoders else {})

    def host_bytes(self, rung: Rung) -> int:
        """Bytes of activations in host memory."""
        if rung.activations != "offload":
            return 0
        return (self.config.layers - rung.selective_blocks) * self._saved(rung, "full")

    # Beside a training step

    def weight_bytes(self, weights: Weights) -> int:
        """The transformer with the blocks' matrices in a format; everything else has 16 bits, or 32 with float32."""
        each, group = STORED[weights]
        inside, rows = _frozen(self.config)
        scales = 0 if group is None else (inside // group if group else rows)
        return round(inside * each) + 4 * scales + (self._transformer - inside) * self._wide(weights)

    def unpacked_bytes(self, rung: Rung) -> float:
        """Bytes that pass through memory in a micro-batch because weights are packed: read, written wide, read."""
        each, group = STORED[rung.weights]
        if group is None or rung.fp8_matmul:
            return 0.0
        passes = 2 + sum(self._done_again(rung)) / self.config.layers
        return passes * _frozen(self.config)[0] * (each + 2)

    @property
    def _transformer(self) -> int:
        return sum(self.parameters[part] for part in ("blocks", "embeddings", "heads"))

    @property
    def encoder_bytes(self) -> int:
        """The frozen encoders in 16 bits."""
        return 2 * sum(n for part, n in self.parameters.items() if part.endswith("encoder"))

    @property
    def cached_bytes(self) -> int:
        """One encoded window in a cache, 16 bits: video latents, the first frame's, and its CLIP features."""
        c = self.config
        latents = c.out_dim * c.window_latents * prod(c.latent_grid)
        return 2 * (latents * (2 if c.conditioning_dim else 1) + c.clip_tokens * c.clip_dim)

    @property
    def prompt_bytes(self) -> int:
        """One encoded prompt in a cache, 16 bits, padded."""
        return 2 * self.config.text_len * self.config.text_dim

    @property
    def encode_flops(self) -> float:
        """One window through the video and image encoders; i2v encodes its first frame again among black ones."""
        video = self._vae(VAE_ENCODE[self.config.flavour], self.config.window_latents - 1)
        return video * (2 if self.config.conditioning_dim else 1) + self._clip_flops

    @property
    def prompt_flops(self) -> float:
        """One prompt through the text encoder, at its padded length."""
        sizes, length = EncoderSizes.released(self.config.flavour).text, self.config.text_len
        matrices = sum(prod(s) for n, s in text_shapes(sizes).items() if n.startswith("blocks.") and len(s) == 2)
        return 2.0 * length * matrices + sizes.layers * 4.0 * length**2 * sizes.dim_attn

    def decision_flops(self, *, steps: int, guided: bool = False, cached_frames: int | None = None) -> float:
        """One chunk: what was seen is encoded and kept, then a chunk denoised by `steps` runs of the network.

        Args:
            guided: classifier-free guidance: every run twice.
            cached_frames: latent frames seen before; the most that a window holds by default.
        """
        chunk = self.config.latents_per_chunk
        seen = self.config.window_latents - chunk if cached_frames is None else cached_frames
        act, observe = self.run_flops(seen, registers=True), self.run_flops(max(0, seen - chunk), registers=False)
        return (1 + guided) * (steps * act + observe) + self._vae(VAE_ENCODE[self.config.flavour], chunk)

    def run_flops(self, cached_frames: int, *, registers: bool) -> float:
        """One run of the network on a chunk after so many cached latent frames."""
        c, frames = self.config, self.config.latents_per_chunk
        layout = decoding_layout(
            c,
            frame_tokens=c.frame_tokens,
            cached_frames=cached_frames,
            first_frame=cached_frames,
            frames=frames,
            registers=registers,
        )
        block = self._products(layout, (layout.asking, layout.tokens), context=False)
        flops = self._attention(layout, (layout.asking, layout.tokens)) + _sum(block)
        video, chunks = frames * c.frame_tokens, int(registers)
        outside = [*self._video_ends(video, video), *self._time(1 + frames + chunks), *self._heads(chunks)]
        return c.layers * flops + _sum(outside)

    @property
    def session_bytes(self) -> int:
        """Keys and values of one robot's run in 16 bits, without guidance: seen frames, and the prompt's."""
        c = self.config
        seen = (c.window_latents - c.latents_per_chunk) * c.frame_tokens
        return 2 * 2 * c.layers * c.dim * (seen + c.text_len + c.clip_tokens)

    # Operations

    @property
    def _layout(self) -> Layout:
        return _training_layout(self.config)

    def _block(self, *, last: bool) -> tuple[float, list[Product]]:
        """Operations of one block's attention, and its linears."""
        queries = self._layout.live if last else (0, self.tokens)
        return self._attention(self._layout, queries), self._products(self._layout, queries)

    def _products(self, layout: Layout, queries: Range, *, context: bool = True) -> list[Product]:
        """A block's linears; with `context` also those of the words and the image, which a policy keeps."""
        c, asked, every = self.config, queries[1] - queries[0], layout.tokens - layout.asking
        found = [Product(f"self_attn.{n}", every, c.dim, c.dim) for n in "kv"]
        found += [Product(f"self_attn.{n}", asked, c.dim, c.dim) for n in "qo"]
        found += [Product(f"cross_attn.{n}", asked, c.dim, c.dim) for n in "qo"]
        found += [Product("ffn.0", asked, c.dim, c.ffn_dim), Product("ffn.2", asked, c.ffn_dim, c.dim)]
        if context:
            lengths = {"k": c.text_len, "v": c.text_len, "k_img": c.clip_tokens, "v_img": c.clip_tokens}
            found += [Product(f"cross_attn.{n}", rows, c.dim, c.dim, to_input=False) for n, rows in lengths.items()]
        return found

    def _attention(self, layout: Layout, queries: Range) -> float:
        """Scores and sums, among the tokens and to the context."""
        pairs = sum(_length(group.queries) * _length(group.keys) for group in layout.groups(queries))
        pairs += (queries[1] - queries[0]) * (self.config.text_len + self.config.clip_tokens)
        return 4.0 * pairs * self.config.dim

    def _lora(self, products: list[Product]) -> tuple[float, float]:
        """Forward and backward operations of a block's adapters; those of a context have no gradient of their input."""
        forward = backward = 0.0
        for p in products:
            if self.rank and p.name in LORA_TARGETS:
                down, up = 2.0 * p.rows * p.inside * self.rank, 2.0 * p.rows * p.outside * self.rank
                forward += down + up
                backward += 2 * up + down + down * p.to_input
        return forward, backward

    def _block_backward(self, part: tuple[float, list[Product]]) -> float:
        attention, products = part
        return ATTENTION_BACKWARD * attention + _sum(p for p in products if p.to_input) + self._lora(products)[1]

    def _done_again(self, rung: Rung) -> list[bool]:
        """Of each block, whether its products are computed twice."""
        whole = rung.activations in ("full", "offload")
        return [whole and layer >= rung.selective_blocks for layer in range(self.config.layers)]

    def _outside(self) -> float:
        c = self.config
        noisy = c.window_latents * c.frame_tokens
        context = [
            Product("text", c.text_len, c.text_dim, c.dim),
            Product("text", c.text_len, c.dim, c.dim),
            Product("image", c.clip_tokens, c.clip_dim, c.clip_dim),
            Product("image", c.clip_tokens, c.clip_dim, c.dim),
        ]
        ends, time = self._video_ends(2 * noisy, noisy), self._time(1 + c.window_latents + c.chunks * c.steps)
        return _sum((*context, *ends, *time, *self._heads(c.chunks)))

    def _outside_backward(self) -> float:
        """Through the video's last layer to its input, and the heads' gradients of weights and of inner inputs."""
        c = self.config
        head = list(self._video_ends(0, c.window_latents * c.frame_tokens))[1]
        return head.flops + sum(p.flops * (1 + p.to_input) for p in self._heads(c.chunks))

    def _video_ends(self, embedded: int, predicted: int) -> Iterator[Product]:
        """Patches to tokens and back."""
        c = self.config
        yield Product("patch_embedding", embedded, c.in_dim * prod(c.patch), c.dim)
        yield Product("head", predicted, c.dim, c.out_dim * prod(c.patch))

    def _time(self, rows: int) -> Iterator[Product]:
        c = self.config
        for inside, outside in ((c.freq_dim, c.dim), (c.dim, c.dim), (c.dim, 6 * c.dim)):
            yield Product("time", rows, inside, outside)

    def _heads(self, chunks: int) -> Iterator[Product]:
        """The robot's heads, which are trained whole; their first layers' inputs have no gradient but the decoder's."""
        c = self.config
        states, actions = chunks * c.states_per_chunk, chunks * c.steps
        yield Product("state", states, c.state_dim, c.head_width, to_input=False)
        yield Product("state", states, c.head_width, c.dim)
        yield Product("action", actions, c.action_dim, c.dim, to_input=False)
        yield Product("action", actions, 2 * c.dim, c.dim)
        yield Product("action", actions, c.dim, c.dim)
        yield Product("decoder", actions, c.dim, c.head_width)
        yield Product("decoder", actions, c.head_width, c.action_dim)

    def _vae(self, each: tuple[float, float], latents: int) -> float:
        return prod(self.config.canvas) * (each[0] + latents * each[1])

    @property
    def _clip_flops(self) -> float:
        s = EncoderSizes.released(self.config.flavour).image
        block = 4 * s.dim**2 + 2 * s.dim * s.ffn
        return (s.layers - 1) * (2.0 * s.tokens * block + 4.0 * s.tokens**2 * s.dim)  # the last layer is not used

    # Bytes

    def _weight_bytes_on(self, weights: Weights, ranks: int) -> int:
        """With several ranks the blocks are divided, and a few stand whole while they are computed."""
        if ranks == 1:
            return self.weight_bytes(weights)
        one = (self.weight_bytes(weights) - self._outside_weight_bytes(weights)) / self.config.layers
        gathered = min(PREFETCHED, self.config.layers) * one
        return round(self._outside_weight_bytes(weights) / ranks + self.config.layers * one / ranks + gathered)

    def _outside_weight_bytes(self, weights: Weights) -> int:
        return (self.parameters["embeddings"] + self.parameters["heads"]) * self._wide(weights)

    def _wide(self, weights: Weights) -> int:
        """Bytes of a number that is computed with."""
        return 4 if weights == "float32" else 2

    def _saved(self, rung: Rung, kind: Activations) -> int:
        """Bytes of a micro-batch that one block keeps between its passes."""
        wide = self._wide(rung.weights)
        return saved_bytes(
            self.config,
            self.tokens,
            kind,
            self.rank,
            batch=rung.micro_batch,
            itemsize=wide,
            adapter_itemsize=MASTER if rung.weights == "float32" or not rung.fused_lora else wide,
            fused=rung.fused_lora,
        )

    def _activation_bytes(self, rung: Rung) -> int:
        """What the blocks keep; and where a block is computed again, all of the last but one while its turn is.

        The last block answers for fewer tokens and has let go by then.
        """
        kind, kept, whole = rung.activations, self._saved(rung, rung.activations), self._saved(rung, "keep")
        before = max(1, self.config.layers - 1)
        if kind in ("keep", "selective"):
            return self.config.layers * kept if kind == "keep" else (before - 1) * kept + whole
        first = min(rung.selective_blocks, before)
        inputs = FETCHED if kind == "offload" else before - first
        return first * self._saved(rung, "selective") + inputs * self._saved(rung, "full") + whole

    def _temporary_bytes(self, rung: Rung) -> int:
        """Float32 copies inside a block; without fused LoRA also the widest adapter's answer, which is float32."""
        unfused = 0 if rung.fused_lora or not self.rank else MASTER * self.config.ffn_dim
        block = BLOCK_TEMPORARIES * (2 if rung.weights == "float32" else 1) * self.config.dim
        return rung.micro_batch * self.tokens * (block + unfused)

    def _unpacked_bytes(self, weights: Weights) -> int:
        """The largest matrix of a block, brought to 16 bits to be multiplied with."""
        packed = STORED[weights][1] is not None
        return 2 * packed * self.config.dim * self.config.ffn_dim

    def _latent_bytes(self) -> int:
        """Latents, noise, targets, predictions and errors in float32; embedded context and tokens, cut and joined."""
        c = self.config
        latents = c.window_latents * prod(c.latent_grid) * (8 * c.out_dim + 2 * c.in_dim)
        embedded = 2 * (self.tokens + c.window_latents * c.frame_tokens) * c.dim
        return (
            4 * latents
            + embedded
            + 2 * (c.text_len * (c.text_dim + 2 * c.dim) + c.clip_tokens * (c.clip_dim + 2 * c.dim))
        )


@lru_cache(maxsize=16)
def _training_layout(config: DreamZeroConfig) -> Layout:
    return training_layout(config, frame_tokens=config.frame_tokens, chunks=config.chunks)


@lru_cache(maxsize=16)
def _shapes(config: DreamZeroConfig) -> Shapes:
    return dit_shapes(config)


@lru_cache(maxsize=16)
def _parameters(config: DreamZeroConfig) -> dict[str, int]:
    shapes, sizes = _shapes(config), EncoderSizes.released(config.flavour)
    blocks = sum(prod(s) for n, s in shapes.items() if n.startswith("blocks."))
    heads = sum(prod(s) for n, s in shapes.items() if is_head(n))
    return {
        "blocks": blocks,
        "embeddings": sum(map(prod, shapes.values())) - blocks - heads,
        "heads": heads,
        "text encoder": sum(map(prod, text_shapes(sizes.text).values())),
        "image encoder": sum(map(prod, image_shapes(sizes.image).values())),
        "video encoder": sum(map(prod, vae_shapes(config.flavour, sizes.vae).values())),
    }


@lru_cache(maxsize=16)
def _frozen(config: DreamZeroConfig) -> tuple[int, int]:
    """Numbers in the blocks' matrices, and their rows."""
    matrices = [s for n, s in _shapes(config).items() if n.startswith("blocks.") and len(s) == 2]
    return sum(map(prod, matrices)), sum(s[0] for s in matrices)


@lru_cache(maxsize=16)
def _trained(config: DreamZeroConfig, rank: int) -> int:
    return sum(map(prod, lora_only_shapes(config, rank=rank).values()))


def _sum(products: Iterable[Product]) -> float:
    return sum(p.flops for p in products)


def _length(ranges: tuple[Range, ...]) -> int:
    return sum(stop - start for start, stop in ranges)
