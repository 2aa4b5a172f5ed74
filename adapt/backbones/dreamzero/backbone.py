"""DreamZero as the engine's `Backbone`: windows in, latents, losses and predictions out, in physical units.

The frozen encoders and the transformer come out of a base checkpoint, which stays where it is. What a run adds is one
small file, `dreamzero.json`: whose channels, words and time base are used, every robot's slots and statistics, and the
fingerprints of the base and of its encoders.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from adapt.backbones.base import AUGMENTED, Future, Latents, Prediction, Totals
from adapt.backbones.dreamzero.checkpoint import Checkpoint, open_checkpoint
from adapt.backbones.dreamzero.config import DreamZeroConfig
from adapt.backbones.dreamzero.encoders import Encoders
from adapt.backbones.dreamzero.encoders.load import encoder_tensors, load_image, load_text, load_video
from adapt.backbones.dreamzero.encoders.text import tokenize
from adapt.backbones.dreamzero.encoders.video import to_model_range
from adapt.backbones.dreamzero.house import mosaic_of, slots_of, space_of, stats_of, style_of
from adapt.backbones.dreamzero.layout import training_layout
from adapt.backbones.dreamzero.load import checkpoint_fingerprint, load_dit
from adapt.backbones.dreamzero.model import HEAD_MODULES, LORA_TARGETS, DreamZeroDiT
from adapt.backbones.dreamzero.names import IMAGE, TEXT, VAE
from adapt.backbones.dreamzero.objective import Batch, Losses, check_batch, training_loss
from adapt.backbones.dreamzero.policy import Policy, Sampling, Session
from adapt.backbones.dreamzero.prepare import prepare
from adapt.backbones.dreamzero.rules import crop_and_resize, normalize
from adapt.backbones.dreamzero.schedule import LEVELS
from adapt.backbones.dreamzero.slots import columns
from adapt.backbones.dreamzero.space import ActionSpace
from adapt.backbones.dreamzero.timesteps import Draws, draw
from adapt.backbones.dreamzero.views import NEGATIVE_PROMPT, Mosaic, prompt, tile, unit_size
from adapt.clips import Clips
from adapt.fingerprint import base_fingerprint
from adapt.planning.rung import Rung
from schemas.embodiment import Embodiment
from schemas.episode import Window
from schemas.errors import DataError, UsageError
from schemas.recipe import AdaptRecipe, TimeBase
from schemas.record import sha256_of
from schemas.stats import Moments, Statistics
from wamdata.order import sample_seed
from wamdata.stats import Accumulator, statistics
from wamdata.windows import on_time_base, velocities

if TYPE_CHECKING:
    from adapt.evaluate.arms import Serving

SETTINGS = "dreamzero.json"
TOKENIZER = ("google/umt5-xxl", "tokenizer", "umt5-xxl")  # where a base's folder, or the one above, may hold it
WORDS = "words"  # in `Latents.encoded`: the prompt's embedding without padding
MASK_CHANNELS = 4
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Robot:
    """A robot's file and the statistics of its training part; None for a robot without actions.

    Args:
        velocity: of the state's rates of change per second, where they are given to the model as further state.
    """

    embodiment: Embodiment
    statistics: Statistics | None
    velocity: Moments | None = None


@dataclass(frozen=True)
class DreamZeroBackbone:
    """Settings of one DreamZero adaptation, and the base that it is made on.

    Args:
        style: whose channels and words: a name in `slots.BASES`.
        encoder: fingerprint of the frozen encoders and of what is done before them.
        base_sha256: fingerprint of the base's transformer.
        robots: by the digest of their embodiment.
    """

    config: DreamZeroConfig
    style: str
    time_base: TimeBase
    encoder: str
    base_sha256: str
    robots: Mapping[str, Robot]
    base: Path | None = None
    tokenizer: Path | None = None
    device: torch.device = CPU
    sampling: Sampling | None = None  # other than what `act` is told, as in deployment
    _loaded: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _spaces: dict[str, ActionSpace] = field(default_factory=dict, repr=False, compare=False)

    name = "dreamzero"
    lora_targets = LORA_TARGETS
    head_modules = HEAD_MODULES
    entries = ("decode", "embed_context", "context_keys_values")
    block_entries = ("keys_values",)

    @classmethod
    def fit(
        cls, play: Clips, videos: Sequence[Clips], recipe: AdaptRecipe, *, on_progress: Callable[[int], None]
    ) -> "DreamZeroBackbone":
        """Raises UsageError: 14 billion parameters are not trained on minutes of data."""
        raise UsageError("dreamzero: needs a base to adapt. Give one with --base DIR (`wam base list` knows some).")

    @classmethod
    def on_base(cls, base: Path, play: Clips, recipe: AdaptRecipe) -> "DreamZeroBackbone":
        checkpoint = open_checkpoint(base)
        _refuse_file_order(base)
        if "last_command" in recipe.derived_state:
            raise UsageError("dreamzero: has no place for the last command. Leave --last-command out.")
        style = recipe.style or style_of(base)
        config = checkpoint.config
        _fits(config, recipe.time_base, base)
        own = cls(
            config=config,
            style=style,
            time_base=recipe.time_base,
            encoder=_encoder_id(checkpoint, config),
            base_sha256=checkpoint_fingerprint(checkpoint),
            robots={},
            base=base,
            tokenizer=None if recipe.tokenizer is None else Path(recipe.tokenizer),
        )
        return own._with(play, recipe, has_actions="action" in recipe.play.losses)

    @classmethod
    def load(cls, folder: Path, *, base: Path | None = None) -> "DreamZeroBackbone":
        """Raises DataError if the file is missing or damaged, or `base` is another one than it was made on."""
        try:
            values = json.loads((folder / SETTINGS).read_bytes())
            robots = {
                digest: Robot(
                    Embodiment.model_validate(robot["embodiment"]),
                    robot["statistics"] and Statistics.model_validate(robot["statistics"]),
                    robot["velocity"] and Moments.model_validate(robot["velocity"]),
                )
                for digest, robot in values.pop("robots").items()
            }
            own = cls(
                config=DreamZeroConfig.from_dict(values.pop("config")),
                time_base=TimeBase.model_validate(values.pop("time_base")),
                tokenizer=values["tokenizer"] and Path(values.pop("tokenizer")),
                robots=robots,
                base=base,
                **{k: values[k] for k in ("style", "encoder", "base_sha256")},
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / SETTINGS}: cannot be read ({error}). Make it again.") from None
        if base is not None and own.identify(base) != own.base_sha256:
            raise DataError(
                f"{base}: is not the base of {folder} (sha256 {own.identify(base)[:12]}, wanted "
                f"{own.base_sha256[:12]}). On another base it would act wrongly; give the right --base."
            )
        return own

    def with_robot(self, clips: Clips, recipe: AdaptRecipe, *, has_actions: bool) -> "DreamZeroBackbone":
        return self._with(clips, recipe, has_actions=has_actions)

    def _with(self, clips: Clips, recipe: AdaptRecipe, *, has_actions: bool = True) -> "DreamZeroBackbone":
        robot, found, velocity = clips.embodiment, None, None
        if has_actions and not robot.is_action_free:
            imitated = frozenset(recipe.imitate)
            rows = [on_time_base(c, robot, self.time_base, imitated=imitated) for c in clips.stream("train")]
            found = statistics(rows, robot, self.time_base)
            if "velocity" in recipe.derived_state:
                rates = Accumulator()
                for part in rows:
                    rates.add(velocities(part.state, self.time_base.action_hz)[part.action_counts])
                velocity = rates.moments()
        robots = {**self.robots, robot.digest(): Robot(robot, found, velocity)}
        made = replace(self, robots=robots, _loaded={}, _spaces={})
        if found is not None:
            made.space(robot.digest())  # refuses a robot whose columns the base has no channels for
            if velocity is not None:
                made._free(robot.digest())
        return made

    def files(self) -> dict[str, bytes]:
        values = {
            "config": self.config.as_dict(),
            "style": self.style,
            "time_base": self.time_base.as_dict(),
            "encoder": self.encoder,
            "base_sha256": self.base_sha256,
            "tokenizer": None if self.tokenizer is None else str(self.tokenizer),
            "robots": {
                digest: {
                    "embodiment": robot.embodiment.as_dict(),
                    "statistics": robot.statistics and robot.statistics.as_dict(),
                    "velocity": robot.velocity and robot.velocity.as_dict(),
                }
                for digest, robot in self.robots.items()
            },
        }
        return {SETTINGS: json.dumps(values, indent=1).encode()}

    def portable(self) -> "DreamZeroBackbone":
        return replace(self, tokenizer=None)

    def to(self, device: torch.device) -> "DreamZeroBackbone":
        return replace(self, device=device, _loaded={})

    def free(self) -> None:
        self._loaded.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def about(self) -> str:
        return (
            f"DreamZero in the words and channels of its {self.style} robots; base sha256 {self.base_sha256[:12]}, "
            "frozen encoders as they came with it"
        )

    @property
    def fingerprint(self) -> str:
        return self.encoder

    @property
    def tokens(self) -> int:
        layout = training_layout(
            self.config,
            frame_tokens=self.config.frame_tokens,
            chunks=self.time_base.chunks,
            clean=True,
            registers=True,
            trim=True,
        )
        return layout.tokens

    def mosaic(self, robot: Embodiment) -> Mosaic:
        """Where the robot's cameras lie, and the words for it."""
        return mosaic_of(robot, base=self.style)

    def space(self, robot: str) -> ActionSpace:
        """How the numbers of the robot of this digest become channels."""
        if robot not in self._spaces:
            known = self.robots[robot]
            assert known.statistics is not None, f"robot {known.embodiment.name} has no actions"
            slots = slots_of(known.embodiment, base=self.style)
            self._spaces[robot] = space_of(known.embodiment, known.statistics, slots)
        return self._spaces[robot]

    def view_size(self, robot: Embodiment) -> None:
        """Views are cut before they are resized, so the source's own pixels are wanted."""

    def tile_size(self, robot: Embodiment) -> tuple[int, int]:
        return unit_size(self.mosaic(robot), self.config.canvas)

    def canvas(self, window: Window, robot: Embodiment) -> np.ndarray:
        mosaic, size = self.mosaic(robot), self.tile_size(robot)
        views = {k: torch.from_numpy(np.ascontiguousarray(window.frames[k])) for k in mosaic.keys}
        if AUGMENTED not in window.extras:
            views = {k: crop_and_resize(v, size) for k, v in views.items()}
        return tile(views, mosaic).numpy()

    def layout_id(self, robot: Embodiment) -> str:
        return repr(self.mosaic(robot))

    def prompt(self, text: str, robot: Embodiment) -> str:
        return prompt(self.mosaic(robot), text)

    def encode(self, windows: Sequence[Window], robot: Embodiment) -> list[dict[str, Tensor]]:
        return [self._encode(torch.from_numpy(self.canvas(w, robot))) for w in windows]

    def _encode(self, canvas: Tensor) -> dict[str, Tensor]:
        """(F, H, W, 3) uint8 to latents (T, C, h, w), first-frame latents (T, C, h, w) and CLIP features, bf16."""
        frames = to_model_range(canvas).permute(3, 0, 1, 2)[None].to(self.device)
        video, image = self._encoders.video, self._encoders.image
        made = {"video": video.encode(frames)[0].transpose(0, 1), "clip": image.encode(frames[:, :, 0])[0]}
        if self.config.conditioning_dim:
            y = video.first_frame(frames[:, :, 0], frames=self.config.window_frames)
            made["first"] = y[0, MASK_CHANNELS:].transpose(0, 1)
        return {name: t.to("cpu", torch.bfloat16).contiguous() for name, t in made.items()}

    def embed(self, prompts: Sequence[str]) -> dict[str, dict[str, Tensor]]:
        """The text encoder, the largest of the three, is loaded for this alone and let go."""
        text = load_text(self._checkpoint, device=self.device, dtype=self._dtype)
        folder = self._tokenizer()
        made = {}
        for words in prompts:
            ids, mask = tokenize([words], folder, max_tokens=self.config.text_len)
            embedded = text.encode(ids.to(self.device), mask.to(self.device))[0, : int(mask.sum())]
            made[words] = {WORDS: embedded.to("cpu", torch.bfloat16).contiguous()}
        return made

    def decode(self, context: Tensor, video: Tensor) -> np.ndarray:
        whole = torch.cat((context.to(video), video), dim=1).transpose(1, 2).float()
        keep = 4 * video.shape[1]
        frames = [self._video.decode(w[None].to(self.device))[0, :, -keep:].cpu() for w in whole]
        pixels = (torch.stack(frames).permute(0, 2, 3, 4, 1) + 1) * 127.5
        return pixels.round().clamp(0, 255).to(torch.uint8).numpy()

    @staticmethod
    def identify(base: Path) -> str:
        return checkpoint_fingerprint(open_checkpoint(base))

    def build(
        self, *, seed: int, base: Path | None, rung: Rung, dtype: torch.dtype, is_mapped: bool = False
    ) -> nn.Module:
        return load_dit(
            self._checkpoint,
            self.config,
            device=self.device,
            dtype=dtype,
            heads_seed=seed,
            weights=rung.weights,
            fp8_matmul=rung.fp8_matmul,
            is_mapped=is_mapped,
        )

    def adapted(self, model: nn.Module, rung: Rung, add_lora: Callable[[nn.Module], nn.Module]) -> nn.Module:
        wide = torch.float64 if dit_of(model).patch_embedding.weight.dtype == torch.float64 else torch.float32
        return prepare(model, rung, add_lora, trained_dtype=wide)

    def loss(
        self, model: nn.Module, samples: Sequence[Latents], *, seed: int, epochs: Sequence[int], of: Totals
    ) -> dict[str, Tensor]:
        batch = self.batch(samples, every_head=of.every_head)
        seeds = [sample_seed(seed, epoch, _name(s)) for s, epoch in zip(samples, epochs, strict=True)]
        drawn = draw(self.config, seeds=seeds, latent_shape=tuple(batch.latents.shape[2:]), rows=batch.action.shape[1])
        losses = self._losses(model, batch, drawn, of)
        return {"video": losses.video, "action": losses.action}

    def loss_at(self, model: nn.Module, samples: Sequence[Latents], *, level: float, seed: int) -> dict[str, float]:
        whole = [s for s in samples if s.chunks == self.time_base.chunks]
        sums: dict[str, float] = {}
        for sample in whole:
            batch = self.batch([sample])
            drawn = draw(
                self.config,
                seeds=[sample_seed(seed, 0, sample.window_id)],
                latent_shape=tuple(batch.latents.shape[2:]),
                rows=batch.action.shape[1],
            )
            at = min(LEVELS - 1, round((1 - level) * LEVELS))
            ids = {n: torch.full_like(getattr(drawn, n), at) for n in ("video_ids", "action_ids")}
            with torch.no_grad():
                found = self._losses(model, batch, replace(drawn, **ids), Totals.of(whole))
            for name in ("video", "action"):
                sums[name] = sums.get(name, 0.0) + float(getattr(found, name))
        return sums

    def _losses(self, model: nn.Module, batch: Batch, drawn: Draws, of: Totals) -> Losses:
        rows = (of.samples, of.action_rows)
        return training_loss(model, _moved(batch, self.device), _moved(drawn, self.device), of=rows)

    def act(
        self,
        model: nn.Module,
        samples: Sequence[Latents],
        *,
        denoise_steps: int,
        draws: int,
        seed: int,
        hide_video: bool = False,
        future: Future = "imagined",
    ) -> Prediction:
        """Each sample by itself, as a robot meets it. Hidden video is mid grey, which the base has never seen."""
        policy = Policy(dit_of(model), self.sampling or Sampling(steps=denoise_steps, computed=denoise_steps))
        actions, videos = [], []
        for sample in samples:
            action, video = self._decide(policy, sample, draws=draws, seed=seed, hide=hide_video, future=future)
            actions.append(action)
            videos.append(video)
        width = self.robots[samples[0].robot].embodiment.action_width if samples else 0
        shape = (0, self.time_base.steps, width)
        return Prediction(
            np.stack(actions) if actions else np.zeros(shape, np.float32),
            torch.stack(videos) if videos else torch.zeros(0),
        )

    def served_as(self, serving: "Serving") -> "DreamZeroBackbone":
        """The same backbone, whose `act` samples as in deployment."""
        sampling = Sampling(
            steps=serving.denoise_steps,
            computed=serving.computed or serving.denoise_steps,
            guidance=serving.guidance or 1.0,
            state_sees_all=serving.sees_all,
        )
        return replace(self, sampling=sampling)

    def _decide(
        self, policy: Policy, sample: Latents, *, draws: int, seed: int, hide: bool, future: Future
    ) -> tuple[np.ndarray, Tensor]:
        """(K, A) absolute commands and (G, C, h, w) latents: the means of the draws."""
        per_chunk = self.config.latents_per_chunk
        encoded = {k: torch.zeros_like(v) if hide and k != WORDS else v for k, v in sample.encoded.items()}
        batch = _moved(self.batch([replace(sample, encoded=encoded)]), self.device)
        negative = self._negative.to(batch.context) if policy.sampling.guidance != 1 else None
        session = policy.start(
            batch.context, batch.latents[:, :, :1], clip=batch.clip, y=batch.y, negative_text=negative
        )
        for chunk in range(sample.chunks - 1):
            first = 1 + chunk * per_chunk
            policy.observe(session, batch.latents[:, :, first : first + per_chunk])
        state = batch.state[:, -1:] if batch.state is not None else batch.latents.new_zeros(1, 1, self.config.state_dim)
        truth = batch.latents[:, :, -per_chunk:].float() if future == "true" else None
        chunks = [
            policy.act(session, state, noise=self._noise(session, seed, number, sample), truth=truth)
            for number in range(draws)
        ]
        video = torch.stack([c.video[0] for c in chunks]).mean(0).transpose(0, 1).float().cpu()
        if not sample.action.shape[-1] or self.robots[sample.robot].statistics is None:
            return np.zeros((self.time_base.steps, sample.action.shape[-1]), np.float32), video
        normal = torch.stack([c.action[0] for c in chunks]).mean(0).float().cpu()
        anchor = torch.from_numpy(sample.state[-1:])
        return self.space(sample.robot).actions_from_base(normal, anchor).numpy(), video

    def _noise(self, session: Session, seed: int, number: int, sample: Latents) -> tuple[Tensor, Tensor]:
        """Noise of one draw of one sample, the same on any device and in any batch."""
        generator = torch.Generator().manual_seed(sample_seed(seed, number, sample.window_id))
        batch, channels, _, height, width = session.latent_shape
        video = torch.randn((batch, channels, self.config.latents_per_chunk, height, width), generator=generator)
        action = torch.randn((batch, self.config.steps, self.config.action_dim), generator=generator)
        return video.to(self.device), action.to(self.device)

    def batch(self, samples: Sequence[Latents], *, every_head: bool = False) -> Batch:
        """Samples of one number of chunks as the objective takes them, on the host.

        Args:
            every_head: rows of action also where no sample has any.

        Raises:
            DataError: a command is outside what the statistics allow; see `check_batch`.
        """
        has_action = tuple(s.has_action for s in samples)
        rows = every_head or any(has_action)
        made = Batch(
            latents=torch.stack([s.video.transpose(0, 1) for s in samples]),
            context=torch.stack([self._words(s) for s in samples]),
            has_action=has_action,
            action=torch.stack([self._actions(s) for s in samples])
            if rows
            else torch.zeros(len(samples), 0, self.config.action_dim),
            action_valid=torch.stack([self._valid(s) for s in samples])
            if rows
            else torch.zeros(len(samples), 0, self.config.action_dim, dtype=torch.bool),
            state=torch.stack([self._state(s) for s in samples]),
            y=torch.stack([self._y(s) for s in samples]) if self.config.conditioning_dim else None,
            clip=torch.stack([s.encoded["clip"] for s in samples]),
        )
        check_batch(made)
        return made

    def _words(self, sample: Latents) -> Tensor:
        return self._padded(sample.encoded[WORDS])

    def _padded(self, words: Tensor) -> Tensor:
        return nn.functional.pad(words, (0, 0, 0, self.config.text_len - len(words)))

    @property
    def _negative(self) -> Tensor:
        """(1, L, text_dim) of what guidance steers away from; the text encoder is loaded for it once."""
        if "negative" not in self._loaded:
            self._loaded["negative"] = self._padded(self.embed([NEGATIVE_PROMPT])[NEGATIVE_PROMPT][WORDS])[None]
        return self._loaded["negative"]

    def _y(self, sample: Latents) -> Tensor:
        """(4 + C, T, h, w): the mask, 1 at the first latent frame, and the first frame's latents."""
        latents = sample.encoded["first"].transpose(0, 1)
        mask = latents.new_zeros(MASK_CHANNELS, *latents.shape[1:])
        mask[:, 0] = 1
        return torch.cat((mask, latents))

    def _state(self, sample: Latents) -> Tensor:
        if not sample.state.shape[-1] or self.robots[sample.robot].statistics is None:
            return torch.zeros(sample.chunks, self.config.state_dim)
        state, space = torch.from_numpy(np.array(sample.state)), self.space(sample.robot)
        known, channels = self.robots[sample.robot].velocity, space.state_to_base(state)
        if known is not None:
            before = torch.from_numpy(np.array(sample.history[:, 0]))  # one row earlier
            rate = (state - before) * self.time_base.action_hz
            channels[..., self._free(sample.robot)] = normalize(rate, stats_of(known), mode=space.mode).to(channels)
        return channels

    def _free(self, robot: str) -> list[int]:
        """The base's state channels that velocities go to: those that the robot's own columns leave free.

        Raises:
            UsageError: there are too few.
        """
        used, width = set(columns(self.space(robot).slots.state)), self.robots[robot].embodiment.state_width
        free = [c for c in range(self.config.state_dim) if c not in used]
        if len(free) < width:
            raise UsageError(f"derived_state: {width} velocities, {len(free)} state channels are free. Leave them out.")
        return free[:width]

    def _actions(self, sample: Latents) -> Tensor:
        rows = sample.chunks * self.time_base.steps
        if not sample.has_action:
            return torch.zeros(rows, self.config.action_dim)
        action = torch.from_numpy(np.array(sample.action)).flatten(0, 1)
        return self.space(sample.robot).actions_to_base(action, torch.from_numpy(np.array(sample.state)))

    def _valid(self, sample: Latents) -> Tensor:
        rows = torch.from_numpy(np.array(sample.action_valid)).flatten()
        if not sample.has_action:
            return torch.zeros(len(rows), self.config.action_dim, dtype=torch.bool)
        return rows[:, None] & self.space(sample.robot).action_mask

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        if self.base is None:
            raise UsageError(f"dreamzero: needs its base (sha256 {self.base_sha256[:12]}). Give it with --base DIR.")
        return open_checkpoint(self.base)

    @property
    def _dtype(self) -> torch.dtype:
        """Encoders compute in bf16 on GPUs; CPUs take many times as long in it."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    @property
    def _encoders(self) -> Encoders:
        if "image" not in self._loaded:
            self._loaded["image"] = load_image(self._checkpoint, device=self.device, dtype=self._dtype)
        return Encoders(self._video, None, self._loaded["image"], lambda prompts: tokenize(prompts, self._tokenizer()))

    @property
    def _video(self):
        if "video" not in self._loaded:
            self._loaded["video"] = load_video(self._checkpoint, device=self.device, dtype=self._dtype)
        return self._loaded["video"]

    def _tokenizer(self) -> Path:
        base = self.base if self.base is None or self.base.is_dir() else self.base.parent
        places = [
            *([self.tokenizer] if self.tokenizer else []),
            *(b / t for b in (base, base.parent) for t in TOKENIZER),
        ]
        for place in places:
            if (place / "tokenizer.json").exists() or (place / "spiece.model").exists():
                return place
        raise UsageError(
            f"{base}: umt5-xxl's tokenizer is not beside it ({', '.join(TOKENIZER)}). Give its folder as `tokenizer` "
            "in the recipe; `wam base pull umt5-xxl-tokenizer` fetches it."
        )


BACKBONE = DreamZeroBackbone


def dit_of(model: nn.Module) -> DreamZeroDiT:
    """The transformer itself, also when peft or DDP is wrapped around it."""
    return next(module for module in model.modules() if isinstance(module, DreamZeroDiT))


def _fits(config: DreamZeroConfig, time_base: TimeBase, base: Path) -> None:
    wanted = (config.steps, config.chunks, 4 * config.latents_per_chunk)
    given = (time_base.steps, time_base.chunks, time_base.frames_per_chunk)
    if given != wanted:
        raise UsageError(
            f"{base}: has {wanted[1]} chunks of {wanted[0]} steps and {wanted[2]} frames, the time base {given[1]} of "
            f"{given[0]} and {given[2]}. Give chunk_s and video_fps whose product is {wanted[2]}."
        )


def _refuse_file_order(base: Path) -> None:
    """An export for the reference's servers has its heads' channels in another order than the base's slots say."""
    sidecar = (base if base.is_dir() else base.parent) / "wamkit.json"
    if sidecar.exists() and json.loads(sidecar.read_bytes()).get("channels") == "file order":
        raise UsageError(f"{base}: its channels are in file order, for servers. Export a base with --keep-channels.")


def _encoder_id(checkpoint: Checkpoint, config: DreamZeroConfig) -> str:
    """Identity of the three encoders' weights, and of the canvas that they see."""
    parts = {part: base_fingerprint(encoder_tensors(checkpoint, part)) for part in (VAE, TEXT, IMAGE)}
    return sha256_of([parts, list(config.canvas), config.window_frames, "crop 0.95, bf16"])


def _name(sample: Latents) -> str:
    """What a sample's draws are seeded by: copies of a window are noised apart."""
    return f"{sample.window_id}c{sample.copy}" if sample.copy else sample.window_id


def _moved(parts, device: torch.device):
    """On the device; through pinned memory, so that the host does not wait."""
    if device.type == "cuda":
        tensors = {k: v.pin_memory() for k, v in vars(parts).items() if isinstance(v, Tensor)}
        parts = replace(parts, **tensors)
    return parts.to(device)
