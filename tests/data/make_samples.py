"""Remake the re-encoded sample videos of `g1_inspire_v21/` from the original data set.

    python tests/data/make_samples.py ORIGINAL_ROOT tests/data/g1_inspire_v21

Two episodes keep their original bytes (ORIGINAL). The other videos are scaled to 192x144, denoised over time
(the sensor noise of the originals is most of their bytes) and encoded as AV1 with a key frame every 60 frames.
Parquet files are copied as they are. Metadata is copied with the episodes outside EPISODES left out.
"""

import json
import shutil
import sys
from pathlib import Path

import av
import numpy as np

CAMERA = "observation.images.cam_high"
ORIGINAL = (10, 13)  # the two smallest
EPISODES = (1, 2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)  # 3 has no video in the source: kept
WIDTH, HEIGHT = 192, 144
NOISE = 12.0  # changes smaller than this many grey levels are mostly sensor noise
KEEP = 0.15  # how much of such a change is taken over per frame


def denoise_and_encode(source: Path, target: Path) -> None:
    with av.open(str(source)) as src, av.open(str(target), "w", options={"fflags": "+bitexact"}) as dst:
        options = {"preset": "4", "crf": "50", "g": "60", "svtav1-params": "lp=1"}
        stream = dst.add_stream("libsvtav1", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        last = None
        for frame in src.decode(video=0):
            rgb = frame.reformat(WIDTH, HEIGHT, "rgb24", interpolation="AREA").to_ndarray().astype(np.float32)
            if last is not None:
                change = rgb - last
                moved = np.clip(np.abs(change).max(-1, keepdims=True) / NOISE, 0, 1) ** 2
                rgb = last + change * np.maximum(moved, KEEP)
            last = rgb
            clean = av.VideoFrame.from_ndarray(rgb.round().astype(np.uint8), "rgb24").reformat(format="yuv420p")
            dst.mux(stream.encode(clean))
        dst.mux(stream.encode())


def main(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    (target / "meta").mkdir(parents=True)
    frames = 0
    for name in ("episodes.jsonl", "episodes_stats.jsonl"):
        rows = [
            r for r in (source / "meta" / name).read_text().splitlines() if json.loads(r)["episode_index"] in EPISODES
        ]
        (target / "meta" / name).write_text("\n".join(rows) + "\n")
        if name == "episodes.jsonl":
            frames = sum(json.loads(r)["length"] for r in rows)
    shutil.copyfile(source / "meta/tasks.jsonl", target / "meta/tasks.jsonl")
    info = json.loads((source / "meta/info.json").read_text())
    info |= {"total_episodes": len(EPISODES), "total_frames": frames, "total_videos": len(EPISODES)}
    (target / "meta/info.json").write_text(json.dumps(info, indent=4) + "\n")
    shutil.copyfile(source / "LICENSE", target / "LICENSE")
    for index in EPISODES:
        rows = Path(f"data/chunk-000/episode_{index:06d}.parquet")
        video = Path(f"videos/chunk-000/{CAMERA}/episode_{index:06d}.mp4")
        (target / rows).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / rows, target / rows)
        if not (source / video).exists():
            continue
        (target / video).parent.mkdir(parents=True, exist_ok=True)
        if index in ORIGINAL:
            shutil.copyfile(source / video, target / video)
        else:
            denoise_and_encode(source / video, target / video)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
