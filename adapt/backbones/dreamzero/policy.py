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
from adapt.backbones.dreamzero.unipc import STEPS, UniPC, computed_steps, skip_after
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
    """

    steps: int = STEPS
    computed: int = STEPS
    adaptive: bool = False
    guidance: float = 1.0
    video_end_sigma: float = 0.0
    state_sees_all: bool = False


REFERENCE = Sampling(computed=8, guidance=5.0, state_sees_all=True)


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
        next_frame: position of the chunk to predict.
    """

    y: Tensor | None
    branches: list[_Branch] = field(repr=False)
    latent_shape: tuple[int, ...] = ()
    next_frame: int = 0


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
        config, (batch, *_) = self.model.config, first_latent.shape
        rows, columns = first_latent.shape[3] // config.patch[1], first_latent.shape[4] // config.patch[2]
        dtype = self.model.patch_embedding.weight.dtype
        branches = []
        for words in (text,) if negative_text is None else (text, negative_text):
            cache = KVCache(config, batch=batch, frame_tokens=rows * columns, device=self.model.device, dtype=dtype)
            branches.append(_Branch(self.model.context_keys_values(words, clip), cache))
        session = Session(y, branches, tuple(first_latent.shape))
        self._keep(session, first_latent)
        return session

    @torch.no_grad()
    def observe(self, session: Session, latents: Tensor) -> None:
        """Keep what was seen since the last chunk: (B, C, latents_per_chunk, H, W) true latents."""
        if latents.shape[2] != self.model.config.latents_per_chunk:
            raise UsageError(
                f"policy: {latents.shape[2]} latent frames observed; wanted one chunk, "
                f"{self.model.config.latents_per_chunk}."
            )
        self._refuse_full(session)
        self._keep(session, latents)

    def is_full(self, session: Session) -> bool:
        """Whether the window holds all chunks that training had: a new one must begin with the newest frame."""
        return session.next_frame >= self.model.config.window_latents

    def has_room(self, session: Session) -> bool:
        """Whether one more chunk can be observed and another one predicted after it."""
        return session.next_frame + 2 * self.model.config.latents_per_chunk <= self.model.config.window_latents

    @torch.no_grad()
    def act(
        self,
        session: Session,
        state: Tensor,
        *,
        noise: tuple[Tensor, Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> Chunk:
        """The next chunk, denoised from noise.

        Args:
            state: (B, states_per_chunk, S) normalised.
            noise: video (B, C, latents_per_chunk, H, W) and action (B, steps, A); else drawn from `generator`.
        """
        self._refuse_full(session)
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
                predicted = self._predict(session, video.x, action.x, state, times)
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
        source = generator.device if generator else device
        video, action = (torch.randn(s, generator=generator, device=source) for s in shapes)
        return video.to(device), action.to(device)

    def _refuse_full(self, session: Session) -> None:
        if self.is_full(session):
            raise UsageError(
                f"policy: the window holds its {self.model.config.chunks} chunks. Start a new session with the newest "
                "frame."
            )
