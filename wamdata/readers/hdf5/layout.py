"""The layouts of HDF5 logs that are known, each a record as a user's own YAML is one, and how globs match paths."""

import re
from functools import lru_cache

from schemas.hdf5_layout import Hdf5Layout

_SCHEMA = {"schema": "wamkit/hdf5_layout@1"}
_DEMOS = {
    "episodes": "data/demo_*",
    "main": "actions",
    # `states` is the simulator's, next_obs is obs one row later, src_demo_* says what a generated demo is made of
    "leave_out": ["next_obs/**", "states", "src_demo_*"],
    "length": ["@num_samples"],
    "success": ["@success"],
    "reward": "rewards",
    "session": ["@src_demo", "@src_demo_ind", "src_demo_inds"],
    "robot": [{"from": "/data@env_args", "json": "env_kwargs.robots"}],
    "filters": "mask",
}
_CONTROL_FREQ = {"from": "/data@env_args", "json": "env_kwargs.control_freq"}

LIBERO = Hdf5Layout.model_validate(
    _SCHEMA
    | _DEMOS
    | {
        "name": "libero",
        # without attributes too: sets that were replayed to drop pauses have none
        "needs": ["data/demo_*/actions", "data/demo_*/obs/agentview_rgb", "data/demo_*/obs/ee_states"],
        "leave_out": [*_DEMOS["leave_out"], "robot_states"],
        "rate": _CONTROL_FREQ | {"hz": 20},
        "texts": [
            {"from": "/data@problem_info", "json": "language_instruction"},
            {"file": r"(?:^|/)(?:[A-Z][A-Z_]*SCENE\d+_)?([^/]+?)(?:_demo)?$"},
        ],
        "upside_down": "always",
    }
)
ROBOMIMIC = Hdf5Layout.model_validate(
    _SCHEMA
    | _DEMOS
    | {
        "name": "robomimic",
        "needs": ["data/demo_*/actions", "data/demo_*/obs"],
        "rate": _CONTROL_FREQ,
        "texts": [{"from": "@ep_meta", "json": "lang"}, "@language_instruction", "@lang"],
        "image_convention": "/data@macros_image_convention",
    }
)
ROBOMIND = Hdf5Layout.model_validate(
    _SCHEMA
    | {
        "name": "robomind",
        "needs": ["puppet", "observations/rgb_images"],
        "streams": ["puppet/**", "master/**"],
        "cameras": [{"from": "observations/rgb_images/*", "channels": "unknown"}],
        "texts": ["language_raw", "language_instruction"],
        "success": [{"file": "(?:^|/)(success|failure)_episodes/"}],
    }
)
ALOHA = Hdf5Layout.model_validate(
    _SCHEMA
    | {
        "name": "aloha",
        "needs": ["observations/qpos", "action"],
        "main": "action",
        "leave_out": ["compress_len", "is_pad"],
        "cameras": [{"from": "observations/images/*", "channels": "unknown"}],
        "rate": {"hz": 50},  # DT = 0.02 in the recorder's constants; no file says it
        "length": ["is_pad", "@num_samples"],
        "texts": ["@task", "@language_instruction", "language_raw", "language_instruction", "instruction"],
        "success": ["@success", "success"],
    }
)
# Asked in this order: what is special stands before what is general.
BUILT_IN = (LIBERO, ROBOMIMIC, ROBOMIND, ALOHA)


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of the globs fits the whole path."""
    return any(_compiled(p.strip("/")).fullmatch(path) for p in patterns)


def is_glob(path: str) -> bool:
    return any(c in path for c in "*?")


def natural(name: str) -> list[str | int]:
    """What to sort by, so that demo_2 comes before demo_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(words.get(part, re.escape(part)) for part in parts))
