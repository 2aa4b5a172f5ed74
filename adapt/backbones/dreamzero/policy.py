"""From latents seen so far to the next chunk of actions and video, with a cache that a session carries.

    session = policy.start(words, first_latent, clip=clip, y=y)
    chunk = policy.act(session, state)                  (B, 24, A) normalised actions, and imagined latents
    policy.observe(session, latents)                    what the cameras then saw, one chunk
    chunk = policy.act(session, state)

A policy holds weights and settings, a session everything of one robot: one process serves many. Two ways of acting:
`Sampling()` computes what training computed (a state token sees itself alone), `REFERENCE` what the public reference
serves. Does not encode frames or know a robot (`controller`).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from adapt.backbones.dreamzero.block import ContextKV
from adapt.backbones.dreamzero.cache import KVCache
from adapt.backbones.dreamzero.model import DreamZeroDiT, Output
from adapt.backbones.dreamzero.schedule import LEVELS, mix
from adapt.backbones.dreamzero.unipc import COMPUTED, STEPS, UniPC, computed_steps, skip_after
from schemas.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """How a chunk is denoised.

    Args:
        steps: levels of the sampler.
        computed: steps at which the network runs, 5 to 8 of 16, or all; the others repeat the last prediction.
        adaptive: instead of a fixed choice, skip steps while predicted actions hardly change; waits for the device.
        guidance: classifier-free guidance of the video; 1 is none and halves the cost. DreamZero trains no
            unconditional branch, and takes actions from the conditional one whatever the guidance.
        video_end_sigma: noise left in the imagined video; above 0 for models trained with decoupled noise.
        state_sees_all: as the reference serves; in training a state token sees itself alone.
        seed: draw the same noise for every decision, where no generator is given.

    Raises:
        UsageError: a number of computed steps that there is no choice for.
    """

    steps: int = STEPS
    computed: int = STEPS
    adaptive: bool = False
    guidance: float = 1.0
    video_end_sigma: float = 0.0
    state_sees_all: bool = False
    seed: int | None = None

    def __post_init__(self) -> None:
        choices = sorted({self.steps, *(COMPUTED if self.steps == STEPS else ())})
        if self.computed not in choices:
            raise UsageError(
                f"sampling: {self.computed} of {self.steps} steps computed. Give one of: "
                f"{', '.join(map(str, choices))}."
            )


REFERENCE = Sampling(computed=8, guidance=5.0, state_sees_all=True, seed=1140)


@dataclass(frozen=True)
class Chunk:
    """What was denoised: normalised actions (B, steps, A), video latents (B, C, latents_per_chunk, H, W)."""

    action: Tensor
    video: Tensor
    network_runs: int


@dataclass
class _Branch:
    """One prompt's view of the past."""

    context: list[ContextKV]
    cache: KVCache


@dataclass
class Session:
    """What one robot's run has seen since its window began.

    Args:
        y: (B, 4 + C, F, H, W) conditioning of the whole window; None where the flavour has none.
        next_frame: position of the chunk to predict; so many latent frames have been seen.
    """

    y: Tensor | None = field(repr=False)
    branches: list[_Branch] = field(repr=False)
    latent_shape: tuple[int, ...] = ()
    next_frame: int = 0

    def rewind(self, frames: int) -> None:
        """Forget what was seen after the first `frames` latent frames."""
        self.next_frame = frames
        for branch in self.branches:
            branch.cache.rewind(frames)


@dataclass(frozen=True)
class Policy:
    """A model and how it is sampled."""

    model: DreamZeroDiT
    sampling: Sampling = Sampling()

    @torch.no_grad()
    def start(
        self,
        text: Tensor,
        first_latent: Tensor,
        *,
        clip: Tensor | None,
        y: Tensor | None,
        negative_text: Tensor | None = None,
    ) -> Session:
        """A session whose window begins with one frame.

        Args:
            text: (B, L, text_dim) embedded prompt; `negative_text` likewise, for guidance.
            first_latent: (B, C, 1, H, W).
        """
        if (self.sampling.guidance != 1) != (negative_text is not None):
            raise UsageError("policy: guidance other than 1 takes a negative prompt, and guidance 1 takes none.")
        config, (batch, _, _, height, width) = self.model.config, first_latent.shape
        if height % config.patch[1] or width % config.patch[2]:
            raise UsageError(
                f"policy: latents of {height}x{width} do not divide into patches of {config.patch[1]}x"
                f"{config.patch[2]}, and what is left over cannot be imagined. Give another canvas."
            )
        rows, columns = height // config.patch[1], width // config.patch[2]
        branches = []
        for words in (text,) if negative_text is None else (text, negative_text):
            cache = KVCache(
                config,
                batch=batch,
                frame_tokens=rows * columns,
                device=self.model.device,
                dtype=self.model.patch_embedding.weight.dtype,
                frames=config.window_latents - config.latents_per_chunk,  # the last chunk is predicted, never kept
            )
            branches.append(_Branch(self.model.context_keys_values(words, clip), cache))
        session = Session(y, branches, tuple(first_latent.shape))
        self._keep(session, first_latent)
        return session

    @torch.no_grad()
    def observe(self, session: Session, latents: Tensor) -> None:
        """Keep what was seen since the last chunk: (B, C, latents_per_chunk, H, W) true latents.

        Raises:
            UsageError: not one chunk's latents, or the window has no room for a chunk after them.
        """
        if latents.shape[2] != self.model.config.latents_per_chunk:
            raise UsageError(
                f"policy: {latents.shape[2]} latent frames observed; wanted one chunk, "
                f"{self.model.config.latents_per_chunk}."
            )
        if not self.has_room(session):
            raise UsageError(
                f"policy: the window has held its {self.model.config.chunks} chunks. Start a new session with the "
                "newest frame."
            )
        before = session.next_frame
        try:
            self._keep(session, latents)
        except BaseException:
            session.rewind(before)
            raise

    def has_room(self, session: Session) -> bool:
        """Whether one more chunk can be observed and another one predicted after it, as training had them."""
        return session.next_frame + 2 * self.model.config.latents_per_chunk <= self.model.config.window_latents

    @torch.no_grad()
    def act(
        self,
        session: Session,
        state: Tensor,
        *,
        noise: tuple[Tensor, Tensor] | None = None,
        generator: torch.Generator | None = None,
        truth: Tensor | None = None,
    ) -> Chunk:
        """The next chunk, denoised from noise.

        Args:
            state: (B, states_per_chunk, S) normalised.
            noise: video (B, C, latents_per_chunk, H, W) and action (B, steps, A); else drawn from `generator`.
            truth: the chunk's recorded latents, of the video noise's shape: in place of imagined video the network is
                shown these, mixed with the noise to the level of each step, so that it acts as an inverse dynamics
                model.
        """
        sampling = self.sampling
        video_noise, action_noise = noise or self._noise(session, generator)
        samplers = UniPC(sampling.steps, end_sigma=sampling.video_end_sigma), UniPC(sampling.steps)
        video, action = samplers[0].start(video_noise.float()), samplers[1].start(action_noise.float())
        fixed = computed_steps(sampling.computed, steps=sampling.steps)
        predicted: Output | None = None
        runs = skip = 0
        for step in range(sampling.steps):
            before = predicted
            if predicted is None or (skip == 0 if sampling.adaptive else fixed[step]):
                times = samplers[0].timesteps[step], samplers[1].timesteps[step]
                shown = video.x if truth is None else mix(truth, video_noise.float(), times[0] / LEVELS)
                predicted = self._predict(session, shown, action.x, state, times)
                runs += 1
                if sampling.adaptive and before is not None:
                    skip = skip_after(before.action, predicted.action)
            else:
                skip -= 1
            _, video = samplers[0].step(predicted.video, video)
            _, action = samplers[1].step(predicted.action, action)
        return Chunk(action.x, video.x, runs)

    def _predict(
        self, session: Session, video: Tensor, action: Tensor, state: Tensor, times: tuple[float, float]
    ) -> Output:
        """Guided velocities of the video, and those of the actions under the prompt itself."""
        batch, frames = video.shape[0], video.shape[2]
        outs = [
            self.model.decode(
                video,
                torch.full((batch, frames), float(times[0]), device=video.device),
                branch.context,
                branch.cache,
                first_frame=session.next_frame,
                y=self._conditioning(session, frames),
                state=state,
                action=action,
                action_timestep=torch.full((batch, 1), float(times[1]), device=video.device),
                state_sees_all=self.sampling.state_sees_all,
            )
            for branch in session.branches
        ]
        guided = outs[0].video.float()
        if len(outs) == 2:
            negative = outs[1].video.float()
            guided = negative + self.sampling.guidance * (guided - negative)
        assert outs[0].action is not None
        return Output(guided, outs[0].action.float())

    def _keep(self, session: Session, latents: Tensor) -> None:
        batch, frames = latents.shape[0], latents.shape[2]
        zero = torch.zeros(batch, frames, device=latents.device)
        for branch in session.branches:
            self.model.decode(
                latents,
                zero,
                branch.context,
                branch.cache,
                first_frame=session.next_frame,
                y=self._conditioning(session, frames),
                commit=True,
            )
        session.next_frame += frames

    def _conditioning(self, session: Session, frames: int) -> Tensor | None:
        return None if session.y is None else session.y[:, :, session.next_frame : session.next_frame + frames]

    def _noise(self, session: Session, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        config, device = self.model.config, self.model.device
        batch, channels, _, height, width = session.latent_shape
        shapes = (batch, channels, config.latents_per_chunk, height, width), (batch, config.steps, config.action_dim)
        drawn = []
        for shape in shapes:
            source = generator
            if source is None and self.sampling.seed is not None:  # the reference seeds video and action alike
                source = torch.Generator().manual_seed(self.sampling.seed)  # the same on any device
            drawn.append(torch.randn(shape, generator=source, device=source.device if source else device).to(device))
        return drawn[0], drawn[1]
