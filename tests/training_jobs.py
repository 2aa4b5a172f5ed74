"""Runs that are ready to train, made in a moment: a nano of 30,000 parameters on made-up windows, no pixel decoded."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from robots import robot

from adapt.backbones.nano.autoencoder import Autoencoder
from adapt.backbones.nano.backbone import NanoBackbone
from adapt.backbones.nano.config import tiny
from adapt.backbones.nano.normalizer import Normalizer
from adapt.cache.catalogue import Catalogue, Entry, Part
from adapt.cache.samples import Cache, open_cache
from adapt.cache.store import Store
from adapt.planning.rung import Rung
from adapt.training.job import Job
from schemas.manifest import Manifest
from schemas.mix import MixPart
from schemas.recipe import AdaptRecipe, Augment, Hardware, SplitRule, TimeBase

TIME_BASE = TimeBase(chunk_s=0.4, video_fps=10, steps=4, chunks=2)
WIDTH, LAGS = 3, 4
WINDOWS = {"play": 11, "film": 5, "val": 7}
CONFIG = replace(tiny(state_width=WIDTH, action_width=WIDTH, chunks=2), lags=LAGS)
SMALL: dict[str, Any] = {
    "steps": 8,
    "batch": 5,
    "lr": 1e-2,
    "heads_lr": 1.0,
    "warmup": 2,
    "weight_decay": 0.05,
    "ema": 0.9,
    "patience": 0,
    "eval_every": 4,
    "save_every": 3,
    "denoise_steps": 1,
    "window_stride_s": 0.4,
}


def toy_recipe(*, precision: str = "float32", share: float = 0.7, **changes: Any) -> AdaptRecipe:
    """Play data and film, two copies of each window, every field written out."""
    play = MixPart(name="play", shards="play", share=share, losses=("video", "action"), role="play")
    film = MixPart(name="film", shards="film", share=1 - share, losses=("video",), role="video")
    fixed = {"parts": (play, film), "backbone": "nano", "time_base": TIME_BASE, "derived_state": ("velocity",)}
    hardware = Hardware(precision=precision)
    return AdaptRecipe(**{**fixed, "augment": Augment(copies=2), "hardware": hardware, **SMALL, **changes})


def toy_job(run: Path, recipe: AdaptRecipe | None = None, *, micro_batch: int = 8, **changes: Any) -> Job:
    """A run folder whose latents stage is done."""
    recipe = recipe or toy_recipe()
    made = toy_backbone()
    for name, content in made.files().items():
        (run / "latents").mkdir(parents=True, exist_ok=True)
        (run / "latents" / name).write_bytes(content)
    Catalogue({n: toy_part(n) for n in WINDOWS}).write(run / "latents")
    Store(run / "latents/store").add(toy_encodings())
    for name in ("play", "film"):
        write_manifest(run / "shards" / name)
    sources = {n: (run / "shards" / n, robot()) for n in ("play", "film")}
    rung = Rung(weights="float32", activations="keep", micro_batch=micro_batch)
    return Job(run, recipe, sources, rung, recipe.steps, **changes)


def toy_cache(run: Path) -> Cache:
    """The cache of a toy job's run."""
    return open_cache(run / "latents")


def toy_backbone() -> NanoBackbone:
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw)

    pixels = CONFIG.patch**2 * 3
    autoencoder = Autoencoder(
        patch=CONFIG.patch,
        group=CONFIG.group,
        mean=normal(pixels),
        static_basis=normal(pixels, CONFIG.static_channels),
        static_scale=torch.ones(CONFIG.static_channels),
        motion_basis=normal((CONFIG.group - 1) * pixels, CONFIG.motion_channels),
        motion_scale=torch.ones(CONFIG.motion_channels),
    )
    normalizer = Normalizer(
        state_mean=torch.zeros(WIDTH),
        state_scale=torch.ones(WIDTH),
        history_scale=torch.ones(LAGS, WIDTH),
        action_mean=torch.zeros(WIDTH),
        action_scale=torch.ones(CONFIG.steps, WIDTH),
        relative_columns=torch.arange(WIDTH),
    )
    return NanoBackbone(CONFIG, TIME_BASE, autoencoder, normalizer, "made-up windows")


def toy_part(name: str) -> Part:
    """Windows of two chunks; every third held-out one has only one. Every fourth play window has a bad command row."""
    copies = 1 if name == "val" else 2
    entries = tuple(
        Entry(
            id=f"{name}@{i:03d}",
            clip=f"{name}-clip",
            chunks=1 if name == "val" and i % 3 == 0 else 2,
            text="wave",
            prompt="wave",
            starts=(i,) * copies,
            keys=tuple(f"{name}{i:03d}c{k}" for k in range(copies)),
            draws=({},) * copies,
        )
        for i in range(WINDOWS[name])
    )
    rng = np.random.default_rng(WINDOWS[name])
    count, width = len(entries) * copies, 0 if name == "film" else WIDTH

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((count, 2, *shape)).astype(np.float32)

    valid = np.ones((count, 2, CONFIG.steps), bool)
    valid[::4, 0, 1] = False
    state = normal(width)
    rows = {
        "state": state,
        "history": normal(LAGS, width),
        "last_action": normal(width),
        "action": state[:, :, None] + np.tanh(state[:, :, None]) * np.linspace(0.2, 1, CONFIG.steps)[:, None],
        "action_valid": valid & (width > 0),
    }
    rows["action"] = rows["action"].astype(np.float32)
    source = "play" if name == "val" else name
    return Part(name, source, "val" if name == "val" else "train", "toy", False, entries, rows)


def toy_encodings() -> dict[str, dict[str, torch.Tensor]]:
    """What the encoders would make of every window and copy, by key."""
    found = {}
    for number, name in enumerate(WINDOWS):
        for entry in toy_part(name).entries:
            for copy, key in enumerate(entry.keys):
                draw = torch.Generator().manual_seed(1000 * number + 2 * entry.starts[0] + copy)
                shape = (1 + entry.chunks, CONFIG.channels, *CONFIG.grid)
                found[key] = {"video": torch.randn(shape, generator=draw).half()}
    return found


def write_manifest(folder: Path) -> None:
    """Shards of nothing: training reads no clip once all is encoded."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(
        fingerprint="0" * 64, embodiment=robot(), split_rule=SplitRule(), shards=(), rejects=(), findings=(),
        source_episodes=0, episodes=0, seconds=0.0, licences=(), sources=(), tool="test",
    )  # fmt: skip
    manifest.write_json(folder / "manifest.json")


def endings(run: Path) -> dict[str, Any]:
    """All that a run ends with: its last checkpoint's tensors and curves, and the best weights."""
    import json

    from safetensors.torch import load_file

    last = sorted((run / "train").glob("step-*[0-9]"))[-1]
    curves = json.loads((last / "curves.json").read_bytes())
    curves.pop("seconds")
    model, optimizer = load_file(last / "model.safetensors"), load_file(last / "optimizer.safetensors")
    kept = run / "train/best.safetensors"
    best = load_file(kept) if kept.exists() else {}
    return {"step": last.name, "curves": curves, "model": model, "optimizer": optimizer, "best": best}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two endings are bit-equal."""
    if one["step"] != other["step"] or one["curves"] != other["curves"]:
        return False
    return all(
        one[k].keys() == other[k].keys() and all(torch.equal(t, other[k][n]) for n, t in one[k].items())
        for k in ("model", "optimizer", "best")
    )


def train_in(job: Job, size: int, *, is_sharded: bool = False) -> None:
    """Train in `size` processes; one is this process itself. Forked: a spawned one would import torch for seconds.

    Raises:
        AssertionError: a process failed; its trace was printed.
    """
    import multiprocessing

    from adapt.training.job import train_here
    from adapt.training.world import World

    if size == 1:
        train_here(job, World())
        return
    context = multiprocessing.get_context("fork")
    port = free_port()
    ranks = [context.Process(target=_rank, args=(job, rank, size, port, is_sharded)) for rank in range(size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(120)
        if process.is_alive():
            process.kill()
    assert [p.exitcode for p in ranks] == [0] * size


def _rank(job: Job, rank: int, size: int, port: int, is_sharded: bool) -> None:
    import os

    from adapt.training.job import train_here
    from adapt.training.world import join, leave

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(size)}
    train_here(job, replace(join(), is_sharded=is_sharded))
    leave()


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def distance(one: dict[str, Any], other: dict[str, Any], *, parts: tuple[str, ...] = ("model", "best")) -> float:
    """The largest difference of two endings, relative to the largest number of its tensor."""
    found = [0.0]
    for part in parts:
        assert one[part].keys() == other[part].keys()
        for name, tensor in one[part].items():
            if name.startswith("average."):  # a distance in bfloat16: compared as what it stands for
                weights = (e[part][name.replace("average.", "weight.", 1)] for e in (one, other))
                a, b = (e[part][name].double() + w for e, w in zip((one, other), weights, strict=True))
            else:
                a, b = tensor.double(), other[part][name].double()
            found.append(float((a - b).abs().max() / a.abs().max().clamp_min(1e-12)))
    return max(found)
