"""Small robots and episodes for tests, checkable by eye."""

from pathlib import Path
from typing import Any

import numpy as np

from schemas.embodiment import Embodiment
from schemas.episode import Episode, Stream, Text
from schemas.yaml_io import parse


def robot(**changes: Any) -> Embodiment:
    """Two joints in degrees, a gripper that is open at 10 and closed at 0, 10 Hz, no camera."""
    content: dict[str, Any] = {
        "schema": "wamkit/embodiment@1",
        "name": "toy",
        "native_hz": 10,
        "state": [
            {"name": "arm", "unit": "deg", "from": "state", "columns": "0:2"},
            {
                "name": "gripper",
                "kind": "gripper",
                "unit": "tick",
                "open": 10,
                "closed": 0,
                "from": "state",
                "columns": [2],
            },
        ],
        "action": [
            {"name": "arm", "like": "state.arm", "from": "action", "relative_to": "state.arm"},
            {"name": "gripper", "like": "state.gripper", "from": "action"},
        ],
    }
    return parse(Embodiment, content | changes, "toy")


def episode(rows: int = 20, hz: float = 10.0, **changes: Any) -> Episode:
    """State rises by one degree a row, the command is two degrees ahead, the gripper opens slowly."""
    t_ns = np.round(np.arange(rows) * 1e9 / hz).astype(np.int64)
    ramp = np.arange(rows, dtype=np.float32)
    state = np.stack([ramp, -ramp, ramp / rows * 10], axis=1).astype(np.float32)
    action = state + np.array([2, 2, 0], np.float32)
    values: dict[str, Any] = {
        "source": "memory",
        "key": "e0",
        "streams": {
            "state": Stream("state", t_ns.copy(), state, ("pan", "tilt", "grip")),
            "action": Stream("action", t_ns.copy(), action, ("pan", "tilt", "grip")),
        },
        "videos": {},
        "texts": (Text("wave", int(t_ns[0]), int(t_ns[-1]) + 1),),
        "session": "s0",
        "reader": "test",
        "source_sha256": "0" * 64,
    }
    return Episode(**values | changes)


def tree_hash(folder: Path) -> str:
    """Names and contents of everything below a folder, time stamps left out."""
    import hashlib

    total = hashlib.sha256()
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return total.hexdigest()
