"""The limits by which film is curated."""

from typing import Literal

from pydantic import Field

from schemas.record import Record


class CurateRules(Record):
    """What a shot must be to be kept; a limit of 0 is none.

    Levels are grey levels (0 to 255) of pictures of 320 pixels on their long side. "Measured" are the three DROID
    cameras of tests/data, a robot's exterior and wrist views at 320x180 as their logger coded them, and two HD clips.

    Args:
        min_s: shortest shot. The least that NVIDIA's cosmos-curate keeps.
        min_width, min_height: of the file, as shown. LIBERO's pictures, 128 on a side, are among the smallest that
            robot models are trained on.
        static_s: longest stretch without any motion; longer ones are cut out. Robots rest between two moves, people
            think; nothing measured rests for longer than 0.6 s.
        static_level: change of the most changed of 12 x 16 blocks that is no motion yet: what the doctor takes for one
            picture coded twice.
        black_s: longest black stretch inside a shot; longer ones are cut out. A fade holds black for half a second.
        max_brightness: mean level above which a shot is blown out.
        min_sharpness: variance of the Laplacian over the variance of the luminance, both a little smoothed, in the
            middle one of the textured blocks. Measured: 0.065 and more in the middle of a film; the same films blurred
            by 3 pixels (sigma): 0.013 and less.
        max_camera_motion: change of the middle block within 0.2 s. No limit by default: cameras on wrists and heads
            reach 10 (see wamdata/camera_motion.py), and they are what a robot sees.
        duplicates: drop copies of earlier shots.
        duplicate_bits: of the 64 of a perceptual hash that may differ between two pictures of a scene; imagehash's
            authors take up to 10 for alike. A copy must also move alike, since one robot's films share their scene.
        duplicate_similarity: cosine of two shots' embeddings from which on they are one; used with an encoder alone.
    """

    schema_id: Literal["wamkit/curate@1"] = Field(default="wamkit/curate@1", alias="schema")
    min_s: float = Field(default=2.0, ge=0)
    min_width: int = Field(default=128, ge=0)
    min_height: int = Field(default=128, ge=0)
    static_s: float = Field(default=5.0, ge=0)
    static_level: float = Field(default=2.0, gt=0)
    black_s: float = Field(default=0.4, gt=0)
    max_brightness: float = Field(default=245.0, ge=0)
    min_sharpness: float = Field(default=0.015, ge=0)
    max_camera_motion: float = Field(default=0.0, ge=0)
    duplicates: bool = True
    duplicate_bits: int = Field(default=10, ge=0, le=32)
    duplicate_similarity: float = Field(default=0.97, gt=0, le=1)
