"""DreamZero's diffusion transformer: Wan's video model, causal in chunks, with states and actions beside the video.

Parameters carry the reference's names, so a released checkpoint's DiT tensors load as they are. Two things are done
once and not per token: time embeddings (one row to a timestep) and, in a policy, the context's keys and values. With
`Settings.trim` the last clean chunk and the last block's clean queries, which reach no output, are left out: exact.

B batch, F latent frames, H W latent size, N tokens, D width, T action rows, L words.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.backbones.dreamzero.attention import Backend, Plan, plan
from adapt.backbones.dreamzero.block import Block, Context, ContextKV, Scene, Spread, modulated
from adapt.backbones.dreamzero.cache import KVCache
from adapt.backbones.dreamzero.config import DreamZeroConfig, preset
from adapt.backbones.dreamzero.layers import (
    ActionEncoder,
    ImageEmbedding,
    PatchEmbedding,
    RobotMLP,
    cosine_sine,
    unpatch,
)
from adapt.backbones.dreamzero.layout import Layout, decoding_layout, training_layout
from adapt.backbones.dreamzero.names import HEAD_MODULES, LORA_TARGETS
from adapt.backbones.dreamzero.remember import HostShelf, Kind, fully
from adapt.backbones.dreamzero.rope import rotation
from adapt.planning.rung import Rung

__all__ = ["HEAD_MODULES", "LORA_TARGETS", "DreamZeroDiT", "Output", "Settings", "build", "configured", "randomise"]


@dataclass(frozen=True)
class Settings:
    """How a forward pass is computed; none of it changes a result beyond rounding.

    Args:
        trim: leave out what reaches no output.
        activations: what each block keeps for the backward pass; see `remember`.
        selective_blocks: with `full` or `offload`, so many of the first blocks are `selective` instead.
    """

    attention: Backend = "auto"
    trim: bool = True
    activations: Kind = "keep"
    selective_blocks: int = 0

    def kind(self, layer: int) -> Kind:
        """What one block keeps."""
        return "selective" if layer < self.selective_blocks else self.activations


def configured(settings: Settings, rung: Rung) -> Settings:
    """The settings with a rung's."""
    return replace(settings, activations=rung.activations, selective_blocks=rung.selective_blocks)


@dataclass(frozen=True)
class Output:
    """Predicted velocities: video (B, C, F, H, W), and action (B, T, A) where there were actions."""

    video: Tensor
    action: Tensor | None


class DreamZeroDiT(nn.Module):
    """The transformer. `settings` and `plan_override` may be set at any time."""

    def __init__(self, config: DreamZeroConfig, settings: Settings | None = None) -> None:
        super().__init__()
        dim = config.dim
        self.config, self.settings = config, settings or Settings()
        self.plan_override: Plan | None = None
        self.patch_embedding = PatchEmbedding(config.in_dim, dim, config.patch)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.img_emb = ImageEmbedding(config.clip_dim, dim)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.head = Head(config)
        self.state_encoder = RobotMLP(config.state_dim, config.head_width, dim)
        self.action_encoder = ActionEncoder(config.action_dim, dim)
        self.action_decoder = RobotMLP(dim, config.head_width, config.action_dim)

    @property
    def device(self) -> torch.device:
        return self.patch_embedding.weight.device

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        context: Tensor,
        *,
        clip: Tensor | None = None,
        y: Tensor | None = None,
        clean: Tensor | None = None,
        state: Tensor | None = None,
        action: Tensor | None = None,
        action_timestep: Tensor | None = None,
        has_action: tuple[bool, ...] | None = None,
    ) -> Output:
        """Velocities of a whole window.

        Args:
            noisy: (B, C, F, H, W) noisy latents; F = 1 + chunks * latents_per_chunk.
            timestep: (B, F) in [0, 1000].
            context: (B, L, text_dim) words, zero past their end.
            clip: (B, 257, 1280) features of the first frame.
            y: (B, 4 + C, F, H, W) mask and first-frame latents; i2v only.
            clean: (B, C, F, H, W) the true latents (teacher forcing).
            state: (B, chunks * states_per_chunk, S); action: (B, T, A) noisy, with T = chunks * steps.
            action_timestep: (B, T), or (B, chunks) where a chunk's actions share one.
            has_action: for each sample, whether its actions are real; those of others are padding that no video sees.

        Raises:
            ValueError: shapes do not fit together.
        """
        chunks = self._chunks(noisy, timestep, state, action, action_timestep)
        if (clean is not None and clean.shape != noisy.shape) or (has_action and len(has_action) != len(noisy)):
            raise ValueError(
                f"noisy {tuple(noisy.shape)}: wanted clean latents of this shape and one has_action a sample, got "
                f"{None if clean is None else tuple(clean.shape)} and {len(has_action or ())}."
            )
        grid = self._grid(noisy)
        layout = training_layout(
            self.config,
            frame_tokens=grid[0] * grid[1],
            chunks=chunks,
            clean=clean is not None,
            registers=action is not None,
            trim=self.settings.trim,
        )
        parts = [] if clean is None else [self._embed_video(clean, y)[:, : layout.count("clean")]]
        parts.append(self._embed_video(noisy, y))
        parts += self._embed_registers(state, action, action_timestep)
        return self._run(
            torch.cat(parts, dim=1),
            layout,
            timestep,
            action_timestep,
            self.embed_context(context, clip),
            grid,
            has_action=tuple(map(bool, has_action or (True,))),
        )

    @torch.no_grad()
    def decode(
        self,
        video: Tensor,
        timestep: Tensor,
        context: list[ContextKV],
        cache: KVCache,
        *,
        first_frame: int,
        y: Tensor | None = None,
        state: Tensor | None = None,
        action: Tensor | None = None,
        action_timestep: Tensor | None = None,
        commit: bool = False,
        state_sees_all: bool = False,
    ) -> Output:
        """Velocities of one chunk's video (and actions), given the cached video before it.

        Args:
            video: (B, C, n, H, W) the latents at positions `first_frame` to `first_frame + n`.
            context: of every block, from `context_keys_values`.
            y: conditioning of these frames.
            commit: keep this video in the cache: for true latents, at timestep 0 and without actions.
        """
        grid, frames = self._grid(video), video.shape[2]
        layout = decoding_layout(
            self.config,
            frame_tokens=grid[0] * grid[1],
            cached_frames=cache.visible_frames(frames),
            first_frame=first_frame,
            frames=frames,
            registers=action is not None,
            state_sees_all=state_sees_all,
        )
        parts = [self._embed_video(video, y), *self._embed_registers(state, action, action_timestep)]
        out = self._run(torch.cat(parts, dim=1), layout, timestep, action_timestep, context, grid, cache=cache)
        if commit:
            cache.commit(frames * grid[0] * grid[1])
        return out

    def embed_context(self, text: Tensor, clip: Tensor | None) -> Context:
        """Words and first image at the model's width."""
        dtype = self.text_embedding[0].weight.dtype
        image = None if clip is None else self.img_emb(clip.to(dtype))
        return Context(self.text_embedding(text.to(dtype)), image)

    @torch.no_grad()
    def context_keys_values(self, text: Tensor, clip: Tensor | None) -> list[ContextKV]:
        """Every block's keys and values of a prompt and first image, for `decode`."""
        context = self.embed_context(text, clip)
        return [block.keys_values(context) for block in self.blocks]

    def _run(
        self,
        x: Tensor,
        layout: Layout,
        timestep: Tensor,
        action_timestep: Tensor | None,
        context: Context | list[ContextKV],
        grid: tuple[int, int],
        *,
        has_action: tuple[bool, ...] = (True,),
        cache: KVCache | None = None,
    ) -> Output:
        config = self.config
        timestep = timestep.to(torch.promote_types(timestep.dtype, torch.float32))
        rows = [torch.zeros_like(timestep[:, :1]), timestep]
        per_chunk = 0
        if action_timestep is not None:
            rows.append(action_timestep.to(timestep.dtype))
            per_chunk = action_timestep.shape[1] * config.steps // layout.count("action")
        embedded = self._embed_time(torch.cat(rows, dim=1))
        modulation = self.time_projection(embedded).unflatten(-1, (6, -1))
        wide = torch.promote_types(modulation.dtype, torch.float32)
        scene = _scene(layout, per_chunk, grid, config, x.device, wide, cache)
        backend = self.settings.attention
        if cache is not None and backend == "auto":
            backend = "grouped"  # all but the state see all keys: nothing to mask, nothing to compile
        if cache is None and backend in ("auto", "flex") and self._blocks_watch():
            if backend == "flex":
                raise ValueError(
                    "attention 'flex' in selective blocks needs compiled blocks. Compile or give 'grouped'."
                )
            backend = "grouped"  # a FlexAttention kernel that is compiled by itself hides from a block that watches
        attention = self.plan_override or plan(layout, backend=backend, device=x.device, has_action=has_action)
        modulation = modulation.to(wide)
        shelf = HostShelf(x.device)
        for index, block in enumerate(self.blocks):
            last = index == len(self.blocks) - 1
            attend = attention.last if last else attention.every
            words = context[index] if isinstance(context, list) else context
            arguments = (x, modulation, words, scene, attend, last)
            match self.settings.kind(index) if torch.is_grad_enabled() else "keep":
                case "full":
                    x = fully(block, *arguments)
                case "offload":
                    x = shelf.offloaded(block, *arguments)
                case "selective":
                    x = block(*arguments, selective=True)
                case _ if cache is not None:
                    # Past a compiled block: every cache length would be another graph. Through its hooks, for FSDP.
                    x = block._call_impl(*arguments)
                case _:
                    x = block(*arguments)
        noisy = next(s.start for s in layout.segments if s.kind == "noisy" and s.start >= layout.asking)
        first = noisy - layout.live[0]
        frames = embedded[:, 1 : 1 + timestep.shape[1]].to(wide)
        video_tokens = layout.count("noisy")
        video = self.head(x[:, first : first + video_tokens], frames, grid)
        action = None
        if action_timestep is not None:
            tokens = x[:, first + video_tokens :][:, : layout.count("action")]
            action = self.action_decoder(tokens)
        return Output(video, action)

    def _blocks_watch(self) -> bool:
        """Whether blocks watch their own operations: selective ones that are not compiled do."""
        kinds = {self.settings.kind(layer) for layer in range(len(self.blocks))}
        is_compiled = self.blocks[0]._compiled_call_impl is not None
        return "selective" in kinds and torch.is_grad_enabled() and not is_compiled

    def _embed_video(self, latents: Tensor, y: Tensor | None) -> Tensor:
        if self.config.conditioning_dim:
            if y is None:
                raise ValueError("this model is conditioned on the first frame: give y, its mask and latents.")
            latents = torch.cat((latents, y.to(latents.dtype)), dim=1)
        return self.patch_embedding(latents.to(self.patch_embedding.weight.dtype))

    def _embed_registers(
        self, state: Tensor | None, action: Tensor | None, action_timestep: Tensor | None
    ) -> list[Tensor]:
        if action is None:
            return []
        if state is None or action_timestep is None:
            raise ValueError("actions come with a state and their timesteps.")
        dtype = self.patch_embedding.weight.dtype
        per_row = action.shape[1] // action_timestep.shape[1]
        spread = action_timestep.float().repeat_interleave(per_row, dim=1)
        return [self.action_encoder(action, spread).to(dtype), self.state_encoder(state).to(dtype)]

    def _embed_time(self, timestep: Tensor) -> Tensor:
        weight = self.time_embedding[0].weight
        return self.time_embedding(cosine_sine(timestep, self.config.freq_dim).to(weight.dtype))

    def _grid(self, latents: Tensor) -> tuple[int, int]:
        """(rows, columns) of a frame's tokens; an odd last row or column is left out."""
        return latents.shape[3] // self.config.patch[1], latents.shape[4] // self.config.patch[2]

    def _chunks(
        self,
        noisy: Tensor,
        timestep: Tensor,
        state: Tensor | None,
        action: Tensor | None,
        action_timestep: Tensor | None,
    ) -> int:
        config, frames = self.config, noisy.shape[2]
        chunks, rest = divmod(frames - 1, config.latents_per_chunk)
        if rest or chunks < 1 or timestep.shape != (len(noisy), frames):
            raise ValueError(
                f"{frames} latent frames and timesteps {tuple(timestep.shape)}: wanted one frame and whole chunks of "
                f"{config.latents_per_chunk}, and one timestep a frame."
            )
        if action is None:
            if action_timestep is not None:
                raise ValueError("timesteps of actions, and no actions. Give both or neither.")
            return chunks
        if action.shape[1] != chunks * config.steps:
            raise ValueError(f"{action.shape[1]} action rows: wanted {chunks} chunks of {config.steps}.")
        if action_timestep is not None and action_timestep.shape[1] not in (chunks, action.shape[1]):
            raise ValueError(f"{action_timestep.shape[1]} timesteps of actions: wanted {chunks} or {action.shape[1]}.")
        if state is not None and state.shape[1] != chunks * config.states_per_chunk:
            raise ValueError(f"{state.shape[1]} state rows: wanted {chunks * config.states_per_chunk}.")
        return chunks


class Head(nn.Module):
    """Tokens to latents, modulated by the time embedding itself."""

    def __init__(self, config: DreamZeroConfig) -> None:
        super().__init__()
        self.eps, self.patch = config.eps, config.patch
        self.modulation = nn.Parameter(torch.empty(1, 2, config.dim))
        time, height, width = config.patch
        self.head = nn.Linear(config.dim, config.out_dim * time * height * width)

    def forward(self, x: Tensor, frames: Tensor, grid: tuple[int, int]) -> Tensor:
        """x (B, F * rows * columns, D), frames (B, F, D) -> (B, C, F, H, W)."""
        shift, scale = (self.modulation.to(frames.dtype) + frames[:, :, None]).unbind(2)
        by_frame = F.layer_norm(x, x.shape[-1:], eps=self.eps).unflatten(1, (frames.shape[1], -1))
        hidden = modulated(by_frame, shift[:, :, None], scale[:, :, None]).flatten(1, 2)
        return unpatch(self.head(hidden), self.patch, grid)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is kept here must be of use in training too
def _spreads(layout: Layout, per_chunk: int, frame_tokens: int, steps: int, device: torch.device) -> tuple[Spread, ...]:
    """Of all asking tokens, and of the live ones. Rows of the table: clean, each noisy frame, each action timestep."""
    asking = [s for s in layout.segments if s.start >= layout.asking]
    noisy = [s for s in asking if s.kind == "noisy"]
    first_chunk = next((s.chunk for s in asking if s.kind == "action"), 0)

    def rows(segments: list, *, video: bool) -> torch.Tensor:
        found: list[int] = []
        for segment in segments:
            first = 1 + len(noisy) + (segment.chunk - first_chunk) * per_chunk
            match segment.kind:
                case "clean" if video:
                    found.append(0)
                case "noisy" if video:
                    found.append(1 + segment.frame - noisy[0].frame)
                case "action" if not video:
                    found += [first + token * per_chunk // steps for token in range(segment.tokens)]
                case "state" if not video:
                    found += [first] * segment.tokens
        return torch.tensor(found, dtype=torch.int64, device=device)

    live = [s for s in asking if layout.live[0] <= s.start < layout.live[1]]
    return tuple(Spread(rows(part, video=True), rows(part, video=False), frame_tokens) for part in (asking, live))


def _scene(
    layout: Layout,
    per_chunk: int,
    grid: tuple[int, int],
    config: DreamZeroConfig,
    device: torch.device,
    wide: torch.dtype,
    cache: KVCache | None,
) -> Scene:
    spread, live_spread = _spreads(layout, per_chunk, grid[0] * grid[1], config.steps, device)
    return Scene(
        spread,
        rotation(config, layout, grid, device, wide),
        (layout.live[0] - layout.asking, layout.live[1] - layout.asking),
        live_spread,
        sum(s.tokens for s in layout.segments if s.is_video and s.start >= layout.asking),
        cache,
    )


def build(
    size: str | DreamZeroConfig,
    *,
    device: str | torch.device = "meta",
    dtype: torch.dtype = torch.float32,
    seed: int | None = None,
) -> DreamZeroDiT:
    """A model of a known size; on the meta device it has shapes only.

    Args:
        seed: random weights, for tests and benchmarks; None leaves memory as it is, to be filled by a checkpoint.
    """
    config = preset(size) if isinstance(size, str) else size
    with torch.device("meta"):
        model = DreamZeroDiT(config).to(dtype)
    if torch.device(device).type == "meta":
        return model
    model = model.to_empty(device=device)
    if seed is not None:
        randomise(model, seed)
    return model


@torch.no_grad()
def randomise(model: nn.Module, seed: int, *, only: tuple[str, ...] = ("",)) -> None:
    """Random weights as the reference starts with, except that nothing is zero, so that every path carries signal.

    Args:
        only: prefixes of the parameters to fill.
    """
    generator = torch.Generator(device=next(model.parameters()).device).manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not name.startswith(only):
            continue
        if name.endswith(("norm_q.weight", "norm_k.weight", "norm_k_img.weight", "norm3.weight")) or (
            parameter.ndim == 1 and name.endswith("weight")
        ):
            parameter.fill_(1.0)
        elif parameter.ndim == 1 or name.endswith(".b"):
            parameter.zero_()
        else:
            fan_in = parameter[0].numel() if not name.endswith(".W") else parameter.shape[1]
            deviation = parameter.shape[-1] ** -0.5 if name.endswith("modulation") else fan_in**-0.5
            parameter.normal_(0, deviation, generator=generator)
