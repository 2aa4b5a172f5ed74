"""`nano` as the engine's `Backbone`: windows in, latents, losses and predictions out, in physical units.

The autoencoder and the normalisation are fitted on training windows (and action-free video), kept in
`encoder.safetensors` and `encoder.json`, and travel with every adapter.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, load_file, save
from torch import Tensor, nn

from adapt.backbones.base import Future, Latents, Prediction, Totals
from adapt.backbones.nano.autoencoder import Autoencoder, AutoencoderFit
from adapt.backbones.nano.batch import Batch, Draws, draws_for
from adapt.backbones.nano.canvas import canvas_for, grid, tile
from adapt.backbones.nano.config import NanoConfig
from adapt.backbones.nano.layout import training
from adapt.backbones.nano.model import HEAD_MODULES, LORA_TARGETS, build
from adapt.backbones.nano.normalizer import Normalizer
from adapt.backbones.nano.objective import loss
from adapt.backbones.nano.policy import Chunk, act
from adapt.backbones.nano.text import embed
from adapt.clips import Clips
from adapt.fingerprint import base_fingerprint
from adapt.handover.adapter import FULL
from adapt.planning.rung import Rung
from schemas.embodiment import Embodiment
from schemas.episode import Window
from schemas.errors import DataError, UsageError
from schemas.recipe import AdaptRecipe, TimeBase
from wamdata.order import sample_seed
from wamdata.windows import HISTORY_LAGS, cut_windows, on_time_base, window_starts

ENCODER, SETTINGS = "encoder.safetensors", "encoder.json"
JUDGED_AT_ONCE = 64
CPU = torch.device("cpu")


@dataclass(frozen=True)
class NanoBackbone:
    """Settings, frozen autoencoder and normalisation of one nano model."""

    config: NanoConfig
    time_base: TimeBase
    autoencoder: Autoencoder
    normalizer: Normalizer
    fitted_on: str
    device: torch.device = CPU

    name = "nano"
    lora_targets = LORA_TARGETS
    head_modules = HEAD_MODULES
    entries = ("remember", "predict")
    block_entries = ()

    @classmethod
    def fit(
        cls,
        play: Clips,
        videos: Sequence[Clips],
        recipe: AdaptRecipe,
        *,
        on_progress: Callable[[int], None] = lambda windows: None,
    ) -> "NanoBackbone":
        """Fit the autoencoder on the training part of `videos` and the normalisation on that of `play`."""
        config = config_for(play.embodiment, recipe)
        fit = AutoencoderFit(patch=config.patch, group=config.group)
        windows = 0
        for clips in videos:
            size = _view_size(clips.embodiment, config)
            stride = recipe.time_base.window_rows - 1  # neighbours share one frame: every frame counts about once
            for window in _whole_windows(clips, recipe, stride=stride, view_size=size):
                fit.add(torch.from_numpy(_canvas(window, clips.embodiment, config))[None])
                windows += 1
                on_progress(windows)
        if not windows:
            raise DataError("no training clip is as long as one window, so nothing can be fitted. See `wam plan`.")
        autoencoder = fit.finish(static_channels=config.static_channels, motion_channels=config.motion_channels)
        about = f"{windows} windows of the training part" + (" and of the action-free video" if len(videos) > 1 else "")
        return cls(config, recipe.time_base, autoencoder, _normalizer(play, recipe, config), about)

    @classmethod
    def on_base(cls, base: Path, play: Clips, recipe: AdaptRecipe) -> "NanoBackbone":
        """The base's encoders and trunk for the robot of `play`: widths and normalisation of its training part."""
        own, wanted = cls.load(base), config_for(play.embodiment, recipe)
        if own.time_base != recipe.time_base:
            raise UsageError("the base was trained on another time base. Give the same chunk_s and video_fps.")
        config = replace(
            own.config,
            state_width=wanted.state_width,
            action_width=wanted.action_width,
            lags=wanted.lags,
            last_command=wanted.last_command,
        )
        return replace(own, config=config, normalizer=_normalizer(play, recipe, config))

    def with_robot(self, clips: Clips, recipe: AdaptRecipe, *, has_actions: bool) -> "NanoBackbone":
        """Raises UsageError if its actions are to be learned: nano has one set of heads and one normalisation."""
        if has_actions:
            raise UsageError(
                f"nano has the heads of one robot, and {clips.embodiment.name!r} is another. Replay its video only "
                "(losses: [video])."
            )
        return self

    def portable(self) -> "NanoBackbone":
        return self

    def to(self, device: torch.device) -> "NanoBackbone":
        return replace(self, device=device)

    def free(self) -> None:
        """There is nothing to free: the autoencoder is a few matrices."""

    @property
    def about(self) -> str:
        return (
            "nano's video latents come from a small linear autoencoder (principal components of patches), "
            f"fitted on {self.fitted_on}"
        )

    @property
    def fingerprint(self) -> str:
        return self.autoencoder.fingerprint

    @property
    def tokens(self) -> int:
        return len(training(self.config))

    def view_size(self, robot: Embodiment) -> tuple[int, int]:
        """(height, width) to which each view is decoded."""
        return _view_size(robot, self.config)

    def tile_size(self, robot: Embodiment) -> tuple[int, int]:
        return _view_size(robot, self.config)

    def canvas(self, window: Window, robot: Embodiment) -> np.ndarray:
        return _canvas(window, robot, self.config)

    def layout_id(self, robot: Embodiment) -> str:
        return f"{self.config.canvas}"

    def prompt(self, text: str, robot: Embodiment) -> str:
        return text

    def encode(self, windows: Sequence[Window], robot: Embodiment) -> list[dict[str, Tensor]]:
        canvases = (torch.from_numpy(self.canvas(w, robot)[None].copy()) for w in windows)
        return [{"video": self.autoencoder.encode(canvas)[0].half()} for canvas in canvases]

    def embed(self, prompts: Sequence[str]) -> dict[str, dict[str, Tensor]]:
        return {}

    def decode(self, context: Tensor, video: Tensor) -> np.ndarray:
        frames = self.autoencoder.decode_groups(video.float().cpu())
        return (frames * 255).round().to(torch.uint8).numpy()

    @staticmethod
    def identify(base: Path) -> str:
        return base_fingerprint(load_file(base / FULL))

    def build(
        self, *, seed: int, base: Path | None, rung: Rung, dtype: torch.dtype, is_mapped: bool = False
    ) -> nn.Module:
        """Raises UsageError for a rung that is DreamZero's: nano is too small to quantise or recompute."""
        if rung.weights not in ("float32", "bf16") or rung.selective_blocks:
            raise UsageError(f"nano: weights {rung.weights!r} and selective blocks are DreamZero's. Leave them out.")
        model = build(self.config, seed)
        if base is not None:
            self.load_base(model, base / FULL)
        return model.to(self.device, dtype)

    def adapted(self, model: nn.Module, rung: Rung, add_lora: Callable[[nn.Module], nn.Module]) -> nn.Module:
        return add_lora(model)

    def load_base(self, model: nn.Module, weights: Path) -> tuple[str, ...]:
        """Put a base's weights into `model`; names of tensors that keep their fresh values, their shapes differing."""
        tensors = load_file(weights)
        own = model.state_dict()
        fits = {n: t for n, t in tensors.items() if n in own and own[n].shape == t.shape}
        fresh = tuple(sorted(own.keys() - fits.keys()))
        strange = [n for n in fresh if not n.startswith(HEAD_MODULES)]
        if strange or tensors.keys() - own.keys():
            odd = (strange or sorted(tensors.keys() - own.keys()))[0]
            raise DataError(f"{weights}: tensor {odd!r} does not fit this backbone. Give a base of the same backbone.")
        model.load_state_dict(fits, strict=False)
        return fresh

    def loss(
        self, model: nn.Module, samples: Sequence[Latents], *, seed: int, epochs: Sequence[int], of: Totals
    ) -> dict[str, Tensor]:
        pairs = zip(samples, epochs, strict=True)
        draws = Draws.stack([draws_for(seed, epoch, _name(s), self.config) for s, epoch in pairs])
        like = next(model.parameters())
        return loss(model, self.batch(samples).to(like), draws.to(like), of)

    def loss_at(self, model: nn.Module, samples: Sequence[Latents], *, level: float, seed: int) -> dict[str, float]:
        """Mean losses with every chunk noised at `level` (0 clean, 1 noise), nothing dropped, noise fixed by `seed`."""
        like, whole = next(model.parameters()), [s for s in samples if s.chunks == self.config.chunks]
        if not whole:
            return {}
        draws = Draws.stack([draws_for(seed, 0, s.window_id, self.config) for s in whole])
        fixed = torch.full_like(draws.level, level)
        kept = {"level": fixed, "hide_video": torch.ones(len(whole)), "drop_text": torch.ones(len(whole))}
        with torch.no_grad():
            found = loss(model, self.batch(whole).to(like), replace(draws, **kept).to(like), Totals.of(whole))
        return {name: float(value) for name, value in found.items()}

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
        actions = np.zeros((len(samples), self.config.steps, self.config.action_width), np.float32)
        videos: list[Tensor | None] = [None] * len(samples)
        like = next(model.parameters())
        by_length: dict[int, list[int]] = {}
        for at, sample in enumerate(samples):
            by_length.setdefault(sample.chunks, []).append(at)
        for places in by_length.values():
            for low in range(0, len(places), max(1, JUDGED_AT_ONCE // draws)):
                group = places[low : low + max(1, JUDGED_AT_ONCE // draws)]
                chosen = [samples[i] for i in group]
                batch = self.batch(chosen, context_only=True).to(like)
                noise = self._noise(chosen, draws, seed).to(like)
                truth = None
                if future == "true":
                    truth = torch.stack([s.video[-self.config.latents_per_chunk :] for s in chosen]).to(like)
                chunk = act(model, batch, denoise_steps=denoise_steps, noise=noise, hide_video=hide_video, truth=truth)
                state = torch.from_numpy(np.stack([self._wide(s.state[-1], self.config.state_width) for s in chosen]))
                mean = chunk.action.mean(1).float().cpu()
                physical = self.normalizer.actions_from_model(mean, state=state).numpy()
                video = chunk.video.mean(1).float().cpu()
                for place, action, latents in zip(group, physical, video, strict=True):
                    actions[place], videos[place] = action, latents
        return Prediction(actions, torch.stack(videos) if videos else torch.zeros(0))

    def batch(self, samples: Sequence[Latents], *, context_only: bool = False) -> Batch:
        """Normalised tensors; the last chunk's video is left out where it is to be predicted."""
        return Batch.stack([self._sample(s, context_only=context_only) for s in samples])

    def _sample(self, sample: Latents, *, context_only: bool) -> Batch:
        config, normal = self.config, self.normalizer
        video = sample.video.float()
        if context_only:
            video = video[: -config.latents_per_chunk]
        count, has_action = sample.chunks, sample.has_action
        state = torch.from_numpy(self._wide(sample.state, config.state_width))
        history = torch.from_numpy(self._wide(sample.history, config.state_width))
        action = torch.from_numpy(self._wide(sample.action, config.action_width))
        last = torch.from_numpy(self._wide(sample.last_action, config.action_width))
        scaled = normal.actions_to_model(action, state=state)
        valid = torch.from_numpy(np.array(sample.action_valid)) & has_action
        return Batch(
            latents=video,
            state=_or_zero(normal.state_to_model(state), has_action),
            history=_or_zero(normal.history_to_model(history, state=state), has_action)[:, : config.lags],
            last_action=_or_zero(normal.last_action_to_model(last, state=state), has_action)
            if config.last_command
            else torch.zeros(count, 0),
            action=_or_zero(scaled, has_action) * valid[..., None],  # what must not be learned is not shown either
            action_valid=valid,
            has_action=torch.tensor(has_action),
            text=embed(sample.text, config.text_width),
        )

    def _noise(self, samples: Sequence[Latents], draws: int, seed: int) -> Chunk:
        """Noise that depends on (seed, window, draw) only, so that a batch's make-up is no matter."""
        config, video, action = self.config, [], []
        for sample in samples:
            for draw in range(draws):
                generator = torch.Generator().manual_seed(sample_seed(seed, draw, sample.window_id))
                shape = (config.latents_per_chunk, config.channels, *config.grid)
                video.append(torch.randn(shape, generator=generator))
                action.append(torch.randn(config.steps, config.action_width, generator=generator))
        shape = (len(samples), draws)
        return Chunk(torch.stack(video).unflatten(0, shape), torch.stack(action).unflatten(0, shape))

    def _wide(self, values: np.ndarray, width: int) -> np.ndarray:
        """Action-free samples have no columns: zeros stand in, and are masked."""
        return values if values.shape[-1] == width else np.zeros((*values.shape[:-1], width), np.float32)

    def files(self) -> dict[str, bytes]:
        """The encoder's files, as `save` writes them."""
        tensors = {f"autoencoder.{n}": t for n, t in self.autoencoder.to_tensors().items()}
        tensors |= {f"normalizer.{n}": t for n, t in self.normalizer.to_tensors().items()}
        settings = {
            "config": self.config.to_dict(),
            "time_base": self.time_base.as_dict(),
            "fitted_on": self.fitted_on,
        }
        return {ENCODER: save(tensors), SETTINGS: json.dumps(settings, indent=1).encode()}

    @classmethod
    def load(cls, folder: Path, *, base: Path | None = None) -> "NanoBackbone":
        """The backbone whose encoder files lie in `folder`; of a base it needs nothing until its weights are loaded.

        Raises:
            DataError: they are missing or damaged.
        """
        try:
            settings = json.loads((folder / SETTINGS).read_bytes())
            tensors = load((folder / ENCODER).read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: encoder files cannot be read ({error}). Make them again.") from None
        part = {
            kind: {n.removeprefix(f"{kind}."): t for n, t in tensors.items() if n.startswith(f"{kind}.")}
            for kind in ("autoencoder", "normalizer")
        }
        return cls(
            NanoConfig.from_dict(settings["config"]),
            TimeBase.model_validate(settings["time_base"]),
            Autoencoder.from_tensors(part["autoencoder"]),
            Normalizer.from_tensors(part["normalizer"]),
            settings["fitted_on"],
        )


BACKBONE = NanoBackbone


def config_for(robot: Embodiment, recipe: AdaptRecipe) -> NanoConfig:
    """Sizes of a nano for a robot.

    Raises:
        UsageError: the time base or the number of cameras cannot be.
    """
    time_base, views = recipe.time_base, len(robot.model_cameras)
    if time_base.frames_per_chunk % NanoConfig.group:
        raise UsageError(
            f"nano takes {NanoConfig.group} frames to a latent: chunk_s x video_fps is {time_base.frames_per_chunk}, "
            f"wanted a multiple of {NanoConfig.group}. Mend time_base."
        )
    if not 1 <= views <= 4:
        raise UsageError(f"nano takes one to four cameras, robot {robot.name!r} has {views}. Mark some `use: carry`.")
    return NanoConfig(
        state_width=robot.state_width or 1,  # video alone: one masked column, so that no layer is empty
        action_width=robot.action_width or 1,
        chunks=time_base.chunks,
        steps=time_base.steps,
        frames_per_chunk=time_base.frames_per_chunk,
        canvas=canvas_for(views),
        lags=len(HISTORY_LAGS) if "velocity" in recipe.derived_state else 0,
        last_command="last_command" in recipe.derived_state,
    )


def _canvas(window: Window, robot: Embodiment, config: NanoConfig) -> np.ndarray:
    return tile({c.key: window.frames[c.key] for c in robot.model_cameras}, config.canvas).numpy()


def _view_size(robot: Embodiment, config: NanoConfig) -> tuple[int, int]:
    rows, columns = grid(len(robot.model_cameras))
    return config.canvas[0] // rows, config.canvas[1] // columns


def _whole_windows(clips: Clips, recipe: AdaptRecipe, *, stride: int, view_size) -> Iterator[Window]:
    """Whole training windows every `stride` rows, clip after clip."""
    for clip in clips.stream("train"):
        rows = on_time_base(clip, clips.embodiment, recipe.time_base, imitated=frozenset(recipe.imitate))
        starts = window_starts(clip, rows, recipe.time_base, stride=stride)
        yield from cut_windows(clip, rows, starts, clips.embodiment, recipe.time_base, view_size=view_size)


def _name(sample: Latents) -> str:
    """What a sample's draws are seeded by: copies of a window are noised apart."""
    return f"{sample.window_id}c{sample.copy}" if sample.copy else sample.window_id


def _normalizer(play: Clips, recipe: AdaptRecipe, config: NanoConfig) -> Normalizer:
    """From every whole chunk of the training part, whatever the stride of the training windows."""
    if play.embodiment.is_action_free:
        return _identity(config, len(HISTORY_LAGS))
    time_base = recipe.time_base
    state, history, action = [], [], []
    for clip in play.stream("train"):
        rows = on_time_base(clip, play.embodiment, time_base, imitated=frozenset(recipe.imitate))
        starts = np.arange(max(len(rows) - time_base.steps + 1, 0))
        if not len(starts):
            continue
        chunk = rows.action_counts[starts[:, None] + np.arange(time_base.steps)].all(axis=1)
        starts = starts[chunk]
        state.append(rows.state[starts])
        history.append(rows.state[np.maximum(starts[:, None] - np.array(HISTORY_LAGS), 0)])
        action.append(rows.action[starts[:, None] + np.arange(time_base.steps)])
    if not sum(map(len, state)):
        raise DataError(
            "no training clip has a whole chunk of commands to learn from: nothing can be normalised. See `wam plan`."
        )
    action = torch.from_numpy(np.concatenate(action))
    return Normalizer.fit(
        state=torch.from_numpy(np.concatenate(state)),
        history=torch.from_numpy(np.concatenate(history)),
        action=action,
        action_valid=torch.ones(action.shape[:2], dtype=torch.bool),
        relative_columns=torch.tensor(play.embodiment.relative_columns(), dtype=torch.int64),
    )


def _identity(config: NanoConfig, lags: int) -> Normalizer:
    """For video alone: nothing is normalised, everything is masked."""
    return Normalizer(
        state_mean=torch.zeros(config.state_width),
        state_scale=torch.ones(config.state_width),
        history_scale=torch.ones(lags, config.state_width),
        action_mean=torch.zeros(config.action_width),
        action_scale=torch.ones(config.steps, config.action_width),
        relative_columns=torch.full((config.action_width,), -1),
    )


def _or_zero(values: Tensor, has_action: bool) -> Tensor:
    """`values`, or zeros of their shape for a sample without actions."""
    return values if has_action else torch.zeros_like(values)
