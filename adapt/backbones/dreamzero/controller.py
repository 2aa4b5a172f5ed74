"""Closed loop: camera frames and a state in, a chunk of absolute commands out; one process, any number of robots.

    controller = Controller(policy, encoders, mosaic, space)
    run = None
    while True:
        chunk, run = controller.decide(Observation(frames, state, "pick up the cup"), run)
        ...  # send chunk.actions; collect one frame every 3 steps: eight for the next decision

As in training, history is eight distinct frames to a chunk, encoded in one causal pass from the window's first frame.
`reference_history` does what the public server does instead: four frames, each taken twice, encoded by themselves. When
the window is full, or the instruction changes, a new window begins with the newest frame. Does not filter or limit
what it commands: limits belong to whoever drives the robot.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from adapt.backbones.dreamzero.encoders import Encoders
from adapt.backbones.dreamzero.encoders.video import FRAMES_PER_LATENT, to_model_range
from adapt.backbones.dreamzero.policy import Policy, Session
from adapt.backbones.dreamzero.rules import crop_and_resize
from adapt.backbones.dreamzero.space import ActionSpace
from adapt.backbones.dreamzero.views import NEGATIVE_PROMPT, Mosaic, prompt, tile, unit_size
from schemas.errors import DataError

REFERENCE_FRAMES = 4


@dataclass(frozen=True)
class Observation:
    """What a robot sees and feels when a decision is due.

    Args:
        frames: by camera key, (n, H, W, 3) uint8 since the last decision, oldest first: one frame at least to begin
            with, then one for every 3 steps of the chunk that was carried out.
        state: (S,) now, in the robot's units.
    """

    frames: Mapping[str, Tensor]
    state: Tensor
    instruction: str


@dataclass(frozen=True)
class Command:
    """Actions (steps, A), absolute, in the robot's units; imagined video latents (C, latents_per_chunk, H, W)."""

    actions: Tensor
    imagined: Tensor


@dataclass
class Run:
    """What one robot's closed loop remembers between decisions."""

    instruction: str
    session: Session
    seen: Tensor = field(repr=False)  # (1, 3, n, H, W) canvases of the window, in [-1, 1]


@dataclass(frozen=True)
class Controller:
    """A policy with everything around it that turns pixels and joints into its inputs."""

    policy: Policy
    encoders: Encoders
    mosaic: Mosaic
    space: ActionSpace
    reference_history: bool = False

    @torch.no_grad()
    def decide(
        self, seen: Observation, run: Run | None, *, generator: torch.Generator | None = None
    ) -> tuple[Command, Run]:
        """The next chunk of commands, and the run to give back at the next decision.

        A decision that fails leaves `run` as it was, so that it can be asked for again.

        Raises:
            DataError: a camera or state column is missing or no number, the frames are not those of one chunk, or the
                model's commands are no numbers.
        """
        width = self.space.state.mean.shape[-1]
        if seen.state.shape != (width,) or not bool(seen.state.isfinite().all()):
            raise DataError(
                f"state of shape {tuple(seen.state.shape)}, {int((~seen.state.isfinite()).sum())} of it no numbers: "
                f"wanted {width} columns, none missing. No command is given on a guess."
            )
        canvas = self._canvas(seen.frames)
        if run is None or run.instruction != seen.instruction or not self.policy.has_room(run.session):
            run = self._begin(canvas[:, :, -1:], seen.instruction)
            return self._command(run, seen.state, generator), run
        history, frames = run.seen, run.session.next_frame
        try:
            self._continue(run, canvas)
            return self._command(run, seen.state, generator), run
        except BaseException:
            run.seen = history
            run.session.rewind(frames)
            raise

    def _command(self, run: Run, state: Tensor, generator: torch.Generator | None) -> Command:
        state = state[None].to(self.policy.model.device)
        chunk = self.policy.act(run.session, self.space.state_to_base(state)[None], generator=generator)
        actions = self.space.actions_from_base(chunk.action, state[None])[0]
        if not bool(actions.isfinite().all()):
            raise DataError("the model's commands are no finite numbers. Check its weights and the statistics.")
        return Command(actions, chunk.video[0])

    def _canvas(self, frames: Mapping[str, Tensor]) -> Tensor:
        """(1, 3, n, H, W) in [-1, 1]: the views cut to their middle 95 %, as in evaluation, and tiled."""
        size = unit_size(self.mosaic, self.policy.model.config.canvas)
        views = {k: crop_and_resize(frames[k], size) for k in self.mosaic.keys if k in frames}
        return to_model_range(tile(views, self.mosaic)).permute(3, 0, 1, 2)[None].to(self.policy.model.device)

    def _begin(self, frame: Tensor, instruction: str) -> Run:
        config = self.policy.model.config
        text = self.encoders.embed(prompt(self.mosaic, instruction))
        negative = self.encoders.embed(NEGATIVE_PROMPT) if self.policy.sampling.guidance != 1 else None
        y = self.encoders.video.first_frame(frame[:, :, 0], frames=config.window_frames)
        session = self.policy.start(
            text,
            self.encoders.video.encode(frame),
            clip=self.encoders.image.encode(frame[:, :, 0]),
            y=y if config.conditioning_dim else None,
            negative_text=negative,
        )
        return Run(instruction, session, frame)

    def _continue(self, run: Run, canvas: Tensor) -> None:
        latents = self.policy.model.config.latents_per_chunk
        wanted = REFERENCE_FRAMES if self.reference_history else latents * FRAMES_PER_LATENT
        if canvas.shape[2] != wanted:
            raise DataError(
                f"{canvas.shape[2]} frames since the last decision: wanted {wanted}, evenly over the chunk that was "
                "carried out. To act again sooner, begin a new run."
            )
        if self.reference_history:
            doubled = canvas.repeat_interleave(2, dim=2)
            history = torch.cat((doubled[:, :, :1], doubled), dim=2)
        else:
            run.seen = history = torch.cat((run.seen, canvas), dim=2)
        self.policy.observe(run.session, self.encoders.video.encode(history)[:, :, -latents:])
