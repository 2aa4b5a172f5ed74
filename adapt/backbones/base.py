"""What the engine asks of a backbone. One file or folder implements it; contract tests run on its `tiny` form."""

from __future__ import annotations  # training on a bare machine has no pydantic, which the schemas need

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from adapt.clips import Clips
    from adapt.planning.rung import Rung
    from schemas.embodiment import Embodiment
    from schemas.episode import Window
    from schemas.recipe import AdaptRecipe, TimeBase

Future = Literal["imagined", "true"]
AUGMENTED = "augmented"  # in a window's extras: its views are cut and resized to their tile already


@dataclass(frozen=True)
class Latents:
    """A window after the frozen encoders, low-dimensional parts in physical units.

    Args:
        copy: which augmented copy of the window this is; 0 is the plain one.
        text: the whole prompt, as the model reads it.
        robot: digest of the embodiment that states and actions are in.
        encoded: what the encoders made. `video` (1 + chunks * latents_per_chunk, ...) is always there, frame 0 first;
            the rest is the backbone's own.
        frames: (F + 1, H, W, 3) uint8 of the last chunk and the frame before it; empty unless it is to be judged.
        state, history, last_action, action, action_valid: as in `Window`.
    """

    window_id: str
    copy: int
    clip_key: str
    start: int
    text: str
    robot: str
    encoded: Mapping[str, Tensor]
    frames: np.ndarray
    state: np.ndarray
    history: np.ndarray
    last_action: np.ndarray
    action: np.ndarray
    action_valid: np.ndarray

    @property
    def video(self) -> Tensor:
        return self.encoded["video"]

    @property
    def has_action(self) -> bool:
        """Whether any of its commands is to be learned from."""
        return self.action.shape[-1] > 0 and bool(self.action_valid.any())

    @property
    def chunks(self) -> int:
        return len(self.state)

    @property
    def latents_per_chunk(self) -> int:
        return (len(self.video) - 1) // self.chunks


@dataclass(frozen=True)
class Totals:
    """What the losses of a whole step are means over; a micro-batch or a rank holds a part of it.

    Args:
        samples: windows of the step.
        action_rows: their valid command rows.
        every_head: heads take part in each pass, with zero gradients where no sample has commands: ranks of a divided
            model must reduce the same tensors.
    """

    samples: int
    action_rows: int
    every_head: bool = False

    @classmethod
    def of(cls, samples: Sequence[Latents]) -> Self:
        return cls(len(samples), sum(int(s.action_valid.sum()) for s in samples if s.has_action))


@dataclass(frozen=True)
class Prediction:
    """What a model says of each sample's last chunk: (N, K, A) absolute commands, (N, ...) latents of its video."""

    action: np.ndarray
    video: Tensor


class Backbone(Protocol):
    """A pretrained world action model, or a small one of the same family."""

    name: str
    time_base: TimeBase
    lora_targets: tuple[str, ...]
    head_modules: tuple[str, ...]
    entries: tuple[str, ...]  # the model's methods that are called beside `forward`
    block_entries: tuple[str, ...]  # its blocks' likewise

    @classmethod
    def fit(
        cls, play: Clips, videos: Sequence[Clips], recipe: AdaptRecipe, *, on_progress: Callable[[int], None]
    ) -> Self:
        """A backbone without a base: whatever must be fitted is fitted on the training part."""
        ...

    @classmethod
    def on_base(cls, base: Path, play: Clips, recipe: AdaptRecipe) -> Self:
        """The base's encoders and trunk for the robot of `play`: its widths and normalisation."""
        ...

    @classmethod
    def load(cls, folder: Path, *, base: Path | None = None) -> Self:
        """The backbone whose `files` lie in `folder`; `base` holds the frozen weights that those do not."""
        ...

    def with_robot(self, clips: Clips, recipe: AdaptRecipe, *, has_actions: bool) -> Self:
        """Also for the robot of `clips`, whose data is trained on beside the play data, its actions too or not."""
        ...

    def files(self) -> dict[str, bytes]:
        """Encoders, normalisation and settings as files, by name."""
        ...

    def portable(self) -> Self:
        """Without what is only on this machine, to be handed over."""
        ...

    def to(self, device: torch.device) -> Self:
        """Encoders and batches go to `device`."""
        ...

    def free(self) -> None:
        """Let go of encoders in memory; they are loaded again when asked for."""
        ...

    @property
    def about(self) -> str:
        """One sentence for the report on where the encoders come from."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of the frozen encoders and their settings: latents made by another one are not usable."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens of one whole training window."""
        ...

    def view_size(self, robot: Embodiment) -> tuple[int, int] | None:
        """(height, width) to which views are decoded; None keeps the source's."""
        ...

    def tile_size(self, robot: Embodiment) -> tuple[int, int]:
        """(height, width) of a view on the canvas, to which augmented views are resized."""
        ...

    def canvas(self, window: Window, robot: Embodiment) -> np.ndarray:
        """(F, H, W, 3) uint8: the views tiled as the model sees them."""
        ...

    def layout_id(self, robot: Embodiment) -> str:
        """What `encode` does with a robot's views beside what their frames say: encodings under another are others."""
        ...

    def prompt(self, text: str, robot: Embodiment) -> str:
        """The whole prompt of an instruction."""
        ...

    def encode(self, windows: Sequence[Window], robot: Embodiment) -> list[dict[str, Tensor]]:
        """`Latents.encoded` of each window, without what `embed` gives. Equal however windows are grouped."""
        ...

    def embed(self, prompts: Sequence[str]) -> dict[str, dict[str, Tensor]]:
        """By prompt, what the frozen text encoder adds to `Latents.encoded`; empty where there is none."""
        ...

    def decode(self, context: Tensor, video: Tensor) -> np.ndarray:
        """(N, F, H, W, 3) uint8 frames of predicted latents (N, G, ...); `context` (N, T, ...) are those before."""
        ...

    @staticmethod
    def identify(base: Path) -> str:
        """Fingerprint of a base's weights, to which adapters are bound."""
        ...

    def build(
        self, *, seed: int, base: Path | None, rung: Rung, dtype: torch.dtype, is_mapped: bool = False
    ) -> nn.Module:
        """The model before LoRA, on the device, in the rung's form: the base's weights, or fresh ones without a base.

        Args:
            seed: draws what a base lacks, or has in other widths (a new robot's heads).
            is_mapped: leave weights in their files' memory maps where they can stay, for a host with many processes.
        """
        ...

    def adapted(self, model: nn.Module, rung: Rung, add_lora: Callable[[nn.Module], nn.Module]) -> nn.Module:
        """What `add_lora` makes of a built model, as the rung wants it, with what trains in float32 at least."""
        ...

    def loss(
        self, model: nn.Module, samples: Sequence[Latents], *, seed: int, epochs: Sequence[int], of: Totals
    ) -> dict[str, Tensor]:
        """These samples' part of a step's losses, by name (`video`, `action`): sums over `of`, unweighted.

        Added up over the micro-batches of a step they are its mean losses, however it is divided. Every draw depends
        on (seed, the sample's epoch, window id, copy). Does not wait for the device.
        """
        ...

    def loss_at(self, model: nn.Module, samples: Sequence[Latents], *, level: float, seed: int) -> dict[str, float]:
        """Mean losses with all noise at one level (0 clean, 1 noise) and fixed by `seed`; whole windows only."""
        ...

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
        """The last chunk of each sample from its earlier ones; the mean of `draws` denoisings.

        Args:
            hide_video: actions must do without any video.
            future: `true` shows the last chunk's recorded video in place of imagining it (an inverse dynamics model).
        """
        ...


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that training changes, by name."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def count(tensors: Mapping[str, Tensor]) -> int:
    return sum(t.numel() for t in tensors.values())
