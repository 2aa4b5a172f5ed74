"""A mixture file: which shards a run trains on, in which shares, and what each part is for.

    schema: wamkit/mix@1
    parts:
    - {name: play, shards: shards/so101, share: 0.7, losses: [video, action], role: play}
    - {name: people, shards: shards/hands, share: 0.1, losses: [video], role: video}
    - {name: before, shards: shards/agibot, share: 0.2, losses: [video, action], role: replay, robot: agibot_g1}

Shares are of the windows of a batch, whatever the sizes of the parts. Does not open the shards.
"""

import math
import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from schemas.record import Record

Loss = Literal["video", "action"]
SUM_TOLERANCE = 1e-3  # thirds written as 0.333 are meant as thirds, and need no note
_NAME = re.compile(r"[a-z0-9_-]+")


class MixPart(Record):
    """One source of windows.

    Args:
        name: its name in reports.
        shards: folder with a manifest.
        share: of each batch, in proportion to the other parts' shares.
        losses: what its windows may teach; a row's own use may allow less, never more.
        role: `play` is the robot that the result is for, `video` teaches looks alone, `replay` keeps what a base knew.
        robot: embodiment to see the shards as, by name or file; None is the one they were ingested with.
    """

    name: str
    shards: str
    share: float = Field(gt=0)
    losses: tuple[Loss, ...]
    role: Literal["play", "video", "replay"]
    robot: str | None = None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("a part's name holds only a-z, 0-9, _ and -")
        if name.split("-")[0] in ("train", "val", "test"):
            raise ValueError("a part's name may not begin with train, val or test, which name parts of the split")
        return name

    @model_validator(mode="after")
    def _losses_fit_the_role(self) -> Self:
        if set(self.losses) not in ({"video"}, {"video", "action"}) or len(set(self.losses)) < len(self.losses):
            raise ValueError(f"part {self.name!r}: losses {list(self.losses)}, wanted [video, action] or [video]")
        if self.role == "video" and "action" in self.losses:
            raise ValueError(f"part {self.name!r}: role video has losses [video]; for actions give role play or replay")
        if self.role == "play" and "action" not in self.losses:
            raise ValueError(
                f"part {self.name!r}: role play has losses [video, action]; for video alone give role video"
            )
        return self


class Mix(Record):
    """The parts of a run. At least one is `play`, or all are `video`; several `play` parts are of one robot."""

    schema_id: Literal["wamkit/mix@1"] = Field(default="wamkit/mix@1", alias="schema")
    parts: tuple[MixPart, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [p.name for p in self.parts]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"part {twice[0]!r} is given twice")
        roles = {p.role for p in self.parts}
        if "play" not in roles and roles != {"video"}:
            raise ValueError("no part has role play: name the robot's own part, or give every part role video")
        robots = sorted({p.robot or "as ingested" for p in self.parts if p.role == "play"})
        if len(robots) > 1:
            raise ValueError(f"parts with role play name {len(robots)} robots ({', '.join(robots)}), wanted one")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Share of each part by name, in the file's order; they sum to 1."""
        total = math.fsum(p.share for p in self.parts)
        return {p.name: p.share / total for p in self.parts}

    @property
    def note(self) -> str:
        """What was made of shares that do not sum to 1; "" where they do."""
        total = math.fsum(p.share for p in self.parts)
        if abs(total - 1) <= SUM_TOLERANCE:
            return ""
        taken = ", ".join(f"{name} {share:.3g}" for name, share in self.shares.items())
        return f"shares sum to {total:.4g}: taken as {taken}"
