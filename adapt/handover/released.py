"""Released bases: which there are, which of their files are needed, and what their licences allow.

What is known before any of it is here, so nothing here looks at a disk or at a network. Imports no torch.
"""

import difflib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal

from adapt.backbones.dreamzero.config_json import IMAGE_FILE, TEXT_FILE, VAE_FILE
from schemas.errors import UsageError
from schemas.recipe import TimeBase

VIDEO_FILES = (VAE_FILE, "Wan2.2_VAE.pth")
CARD = ("README.md", "LICENSE*")
DREAMZERO_FILES = ("model*.safetensors", "model.safetensors.index.json", "config.json", "experiment_cfg/*")
WAN_FILES = ("diffusion_pytorch_model*.safetensors", "diffusion_pytorch_model.safetensors.index.json", "config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model")
ENCODER_FILES = (TEXT_FILE, IMAGE_FILE, *VIDEO_FILES)
ANY_FILES = (*DREAMZERO_FILES, *WAN_FILES, *ENCODER_FILES, *TOKENIZER_FILES, "google/umt5-xxl/*", *CARD)
NON_COMMERCIAL = "CC-BY-NC-4.0"


@dataclass(frozen=True)
class Base:
    """What is known of a released base before any of it is here.

    Args:
        size: of its DiT, as `describe` names it; None for the tokenizer.
        gb: least and most that it takes on disk; None where that is not known.
        licence: of the weights; None where it is not recorded here and the repository's card must say.
        files: patterns of the files that are needed.
        encoders: .pth files without which it is not complete, Wan's own.
        time_base: what it was trained at; None for raw video models, which know no control steps.
    """

    name: str
    repo: str
    kind: Literal["dreamzero", "wan", "tokenizer"]
    size: str | None
    gb: tuple[float | None, float | None]
    licence: str | None
    purpose: str
    adapt: str
    files: tuple[str, ...]
    encoders: tuple[str, ...] = ()
    time_base: TimeBase | None = None

    @property
    def gb_words(self) -> str:
        """`45-49 GB`, `79 GB or more`, or `not recorded`."""
        low, high = self.gb
        if low is None:
            return "not recorded"
        return f"{low:g} GB or more" if high is None else f"{low:g}-{high:g} GB"


# The paper's 24 steps in 1.6 s, and 5 frames/s, which it states for AgiBot and DROID alike.
TRAINED_AT = TimeBase(chunk_s=1.6, video_fps=5.0)
_ON_DREAMZERO = "trains a LoRA on its DiT, and its heads for state and action go on from what they learnt"
_KNOWN = (
    Base(
        name="dreamzero-agibot",
        repo="GEAR-Dreams/DreamZero-AgiBot",
        kind="dreamzero",
        size="14b",
        gb=(45, 49),  # 22.9 B parameters in bfloat16 are 45.8; up to 48.7 is reported
        licence="Apache-2.0",
        purpose="the 14B for a new robot, with several cameras above all",
        adapt=_ON_DREAMZERO,
        files=(*DREAMZERO_FILES, *CARD),
        time_base=TRAINED_AT,
    ),
    Base(
        name="dreamzero-droid",
        repo="GEAR-Dreams/DreamZero-DROID",
        kind="dreamzero",
        size="14b",
        gb=(45, 49),
        licence=NON_COMMERCIAL,
        purpose="the 14B for a Franka as in DROID; not for commerce",
        adapt=_ON_DREAMZERO,
        files=(*DREAMZERO_FILES, *CARD),
        time_base=TRAINED_AT,
    ),
    Base(
        name="wan2.1-i2v-14b-480p",
        repo="Wan-AI/Wan2.1-I2V-14B-480P",
        kind="wan",
        size="14b",
        gb=(79, None),  # DiT in float32 65.6, text encoder 11.4, VAE 0.5, the picture tower of CLIP at least 1.3
        licence=None,
        purpose="the video model under DreamZero's 14B, and the .pth encoders; knows no robot",
        adapt="trains a LoRA on its DiT; heads for state and action are new, drawn from the run's seed",
        files=(*WAN_FILES, TEXT_FILE, IMAGE_FILE, VIDEO_FILES[0], "google/umt5-xxl/*", *CARD),
        encoders=(TEXT_FILE, IMAGE_FILE, VIDEO_FILES[0]),
    ),
    Base(
        name="wan2.2-ti2v-5b",
        repo="Wan-AI/Wan2.2-TI2V-5B",
        kind="wan",
        size="5b",
        gb=(22, 35),  # 5.5 B parameters, VAE of 0.7 B: bfloat16 or float32; text encoder 11.4
        licence=None,
        purpose="the video model under DreamZero's 5B; knows no robot",
        adapt="trains a LoRA on its DiT; heads and the branch for CLIP tokens are new. It comes without the image "
        f"encoder: {IMAGE_FILE} is in wan2.1-i2v-14b-480p",
        files=(*WAN_FILES, TEXT_FILE, VIDEO_FILES[1], "google/umt5-xxl/*", *CARD),
        encoders=(TEXT_FILE, VIDEO_FILES[1]),
    ),
    Base(
        name="umt5-xxl-tokenizer",
        repo="google/umt5-xxl",
        kind="tokenizer",
        size=None,
        gb=(None, None),
        licence=None,
        purpose="the tokenizer that every DreamZero and Wan base needs; no weights",
        adapt="is no base; it turns instructions into tokens for all of them",
        files=(*TOKENIZER_FILES, *CARD),
    ),
)
KNOWN: dict[str, Base] = {base.name: base for base in _KNOWN}


def known(name: str) -> Base:
    """A known base by its name.

    Raises:
        UsageError: there is none of that name; says which there are.
    """
    if name not in KNOWN:
        close = difflib.get_close_matches(name.lower().rpartition("/")[2], KNOWN, n=1, cutoff=0.5)
        hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(KNOWN)}."
        raise UsageError(f"base {name!r}: not known, and no such folder. {hint}")
    return KNOWN[name]


def matching(names: Iterable[str], patterns: Collection[str]) -> list[str]:
    """Names that fit a pattern of as many folders: `*` does not cross a slash."""
    return [n for n in names if any(n.count("/") == p.count("/") and fnmatch(n, p) for p in patterns)]


def consequence(licence: str | None) -> str:
    """What a base's licence means for an adapter that is trained on it, in plain words; no legal advice."""
    if licence is None:
        return "not recorded here: read the repository's card before you use it or pass an adapter on"
    if "-NC" in licence.upper():
        return "not for commercial use; an adapter trained on it is derived from it and inherits that"
    if licence.lower() == "apache-2.0":
        return "commercial use is allowed; pass the licence and notices on with an adapter"
    return "an adapter trained on it carries its terms: read them"
