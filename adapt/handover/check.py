"""Proof that what is handed over acts as the model did when it was trained.

    check.safetensors     a few windows as the frozen encoders made them, and what the trained model predicted on each
    wamkit/               in other layouts than the house's: the check, the robot, the record, `handover.json`

`verify` loads a folder in a process of its own and lets it act on the same windows with the same noise. Robots are
compared by their actions in physical units, models without actions by the latents of the video that they imagine.
Does not judge: a model can act exactly as it was trained and be useless.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from adapt.backbones.base import Backbone, Latents, Prediction
from adapt.cache.samples import Cache
from adapt.handover.adapter import CHECK, RECORD, read_record
from schemas.embodiment import Embodiment
from schemas.errors import DataError, UsageError, WamError
from schemas.files import file_sha256, write_atomic
from schemas.record import Record

HOUSE, HANDOVER = "wamkit", "handover.json"
WINDOWS = 3
ROWS = ("state", "history", "last_action", "action", "action_valid")
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.bfloat16, "float16": torch.float16}
# Largest difference, as a share of a column's size, that rounding in a form may cause over all denoising steps.
TOLERANCE = {"float64": 1e-3, "float32": 1e-3, "float16": 1e-2, "bf16": 5e-2, "fp8": 0.1, "int8": 0.1, "nf4": 0.25}
LATENT_UNIT = "latent units"


@dataclass(frozen=True)
class Settings:
    """How the trained model acted when the check was written.

    Args:
        dtype: it computed in; weights: form of its frozen linears.
        change: of its prediction by its training, as a share of a column's size; None where it has no base.
    """

    denoise_steps: int
    seed: int
    draws: int = 1
    dtype: str = "float32"
    weights: str = "float32"
    change: float | None = None


@dataclass(frozen=True)
class Check:
    """Windows, and the trained model's prediction: actions (N, K, A), or where A is 0 latents of the video (N, ...)."""

    samples: tuple[Latents, ...]
    prediction: Prediction
    settings: Settings

    @property
    def has_action(self) -> bool:
        return self.samples[0].action.shape[-1] > 0


@dataclass(frozen=True)
class Verified:
    """What a loaded folder did on the check's windows.

    Args:
        max_difference: from the trained model, in `unit`, of `component`: the one that comes closest to its tolerance.
        tolerance: in `unit`, of the same component.
        form: whose rounding the tolerance allows for.
        proves: False where training changed the predictions by less than the tolerance, so that a check cannot tell.
    """

    max_difference: float
    unit: str
    windows: int
    tolerance: float
    component: str
    form: str
    proves: bool = True

    @property
    def is_equal(self) -> bool:
        return self.max_difference <= self.tolerance  # NaN is not

    @property
    def words(self) -> str:
        """One line for people."""
        state = "verified" if self.is_equal else "NOT THE TRAINED MODEL"
        unit = f" {self.unit}" if self.unit else ""
        return (
            f"{state}: on {self.windows} windows it differs from the trained model by {self.max_difference:.3g}{unit} "
            f"at most ({self.component}; {self.form} allows {self.tolerance:.3g}{unit})"
            + ("" if self.proves else "; the training changed less than that, so this proves little")
        )


class Handover(Record):
    """`wamkit/handover.json`: what was written beside it, in which layout.

    Args:
        channels: `slots` as in training, or `file order` for the reference's servers; "" without actions.
        stored: dtype of the weights, whose rounding merging adds.
    """

    schema_id: Literal["wamkit/handover@1"] = "wamkit/handover@1"
    layout: Literal["peft", "dreamzero", "dreamzero-lora"]
    channels: Literal["slots", "file order", ""]
    base_name: str
    base_sha256: str
    stored: str
    files: dict[str, str]


def check_windows(cache: Cache, part: str) -> list[Latents]:
    """A few windows of a run to check by: held-out ones where there are any, of all lengths of context.

    Args:
        part: name of the training part to fall back on.
    """
    for name in ("test", "val", part):
        known = cache.catalogue.parts.get(name)
        entries = () if known is None else known.entries
        ranked = sorted((e for e in entries if e.keys[0] in cache.store), key=lambda e: e.chunks)
        if not ranked:
            continue
        places = sorted({0, len(ranked) // 2, len(ranked) - 1})[:WINDOWS]
        return [cache.load(name, ranked[place].id) for place in places]
    return []


def check_of(backbone: Backbone, model: nn.Module, samples: Sequence[Latents], settings: Settings) -> bytes:
    """Content of check.safetensors: the trained model acts once more, and once without what was trained."""
    model.eval()
    prediction = _act(backbone, model, samples, settings)
    if hasattr(model, "disable_adapter"):
        view: AbstractContextManager[Any] = model.disable_adapter()
        with view:
            before = _act(backbone, model, samples, settings)
        made = Check(tuple(samples), prediction, settings)
        settings = replace(settings, change=float(np.nanmax(_shares(made, before), initial=0.0)))
    return check_bytes(samples, prediction, settings)


def check_bytes(samples: Sequence[Latents], prediction: Prediction, settings: Settings) -> bytes:
    """Content of check.safetensors; pictures are left out, encoded windows are in it.

    The header holds what is no tensor:

        {"check": "{\\"settings\\": {\\"denoise_steps\\": 16, ...}, \\"windows\\": [{\\"text\\": ..., ...}]}"}
    """
    tensors: dict[str, Tensor] = {}
    windows = []
    for at, sample in enumerate(samples):
        tensors |= {f"{at}.encoded.{n}": t.detach().cpu().clone() for n, t in sample.encoded.items()}
        tensors |= {f"{at}.{n}": torch.from_numpy(np.array(getattr(sample, n))) for n in ROWS}
        windows.append({n: getattr(sample, n) for n in ("window_id", "copy", "clip_key", "start", "text", "robot")})
    has_action = samples[0].action.shape[-1] > 0
    tensors["predicted"] = torch.from_numpy(prediction.action) if has_action else prediction.video.float().cpu()
    told = json.dumps({"settings": asdict(settings), "windows": windows}, ensure_ascii=False)
    return save({n: t.contiguous() for n, t in tensors.items()}, {"check": told})


def read_check(folder: Path) -> Check:
    """The check of a folder.

    Raises:
        UsageError: it holds none.
        DataError: it cannot be read.
    """
    path = folder / CHECK
    if not path.exists():
        raise UsageError(f"{folder}: holds no {CHECK}, so it cannot be verified. Export it again from its run.")
    try:
        with safe_open(path, "pt") as file:
            told = json.loads(file.metadata()["check"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        samples = tuple(_sample(at, window, tensors) for at, window in enumerate(told["windows"]))
        predicted, settings = tensors["predicted"], Settings(**told["settings"])
        _known_form(settings.dtype)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Export the adapter again.") from None
    if samples[0].action.shape[-1]:
        return Check(samples, Prediction(predicted.numpy(), torch.zeros(0)), settings)
    return Check(samples, Prediction(np.zeros((len(samples), 0, 0), np.float32), predicted), settings)


def verify(folder: Path, base: Path | None = None) -> Verified:
    """Load an exported folder in a fresh process and compare what it does with what the trained model did.

    Args:
        folder: an adapter directory, or what `wam export --to` wrote.
        base: of a LoRA.

    Raises:
        UsageError: there is nothing to verify by, or the base is not given.
        DataError: a file is damaged, the base is another one, or the process was killed.
    """
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = pool.submit(_answer, folder, base).result()
    except BrokenProcessPool:
        raise DataError(f"{folder}: the process that verified it was killed. Verify where it fits in memory.") from None
    if isinstance(found, WamError):
        raise found
    return found


def verify_here(folder: Path, base: Path | None = None) -> Verified:
    """`verify` in this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if (folder / RECORD).exists():
        return _verify_adapter(folder, base, device)
    if (folder / HOUSE / HANDOVER).exists():
        return _verify_layout(folder, base, device)
    raise UsageError(
        f"{folder}: neither an adapter directory ({RECORD}) nor written by `wam export` ({HOUSE}/{HANDOVER}), so it "
        "cannot be verified. Export it again from its run."
    )


def hand_over(
    folder: Path, source: Path, handover: Mapping[str, Any], *, files: Mapping[str, bytes] | None = None
) -> None:
    """Put beside exported weights what belongs to them: robot, statistics, record, check, and the hashes of all.

    Args:
        source: the house's adapter directory that the weights come from.
        handover: fields of `Handover`, without `files`.
        files: more files for the folder itself, such as its model card.
    """
    for name, content in (files or {}).items():
        write_atomic(folder / name, content)
    hashes = {p.relative_to(folder).as_posix(): file_sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    record = read_record(source)
    kept = [n for n in record.files if not n.startswith(("adapter_", "README")) and (source / n).exists()]
    for name in (*kept, RECORD):
        write_atomic(folder / HOUSE / name, (source / name).read_bytes())
        hashes[f"{HOUSE}/{name}"] = file_sha256(folder / HOUSE / name)
    Handover(**handover, files=hashes).write_json(folder / HOUSE / HANDOVER)


def read_handover(folder: Path) -> Handover:
    """What a folder in another layout says of itself.

    Raises:
        DataError: a file other than the check is missing, or its content differs from the hash.
    """
    told = Handover.read_json(folder / HOUSE / HANDOVER)
    for name, digest in told.files.items():
        if not (folder / name).exists():
            if name.endswith(CHECK):
                continue
            raise DataError(f"{folder / name}: is missing. Export it again.")
        if file_sha256(folder / name) != digest:
            raise DataError(f"{folder / name}: content differs from its sha256. Export it again.")
    return told


def _answer(folder: Path, base: Path | None) -> Verified | WamError:
    try:
        return verify_here(folder, base)
    except WamError as error:
        return error


def _verify_adapter(folder: Path, base: Path | None, device: torch.device) -> Verified:
    from adapt.handover.export import load_adapter

    check = read_check(folder)
    settings = check.settings
    backbone, model, robot, _ = load_adapter(
        folder, base, device=device, dtype=DTYPES[settings.dtype], weights=settings.weights
    )
    return _compared(check, _act(backbone, model, check.samples, settings), robot, _coarser(settings.dtype))


def _verify_layout(folder: Path, base: Path | None, device: torch.device) -> Verified:
    """DreamZero in one of the reference's layouts, or as peft's folder; never quantised."""
    from adapt.backbones.dreamzero.backbone import DreamZeroBackbone
    from adapt.backbones.dreamzero.checkpoint import open_checkpoint
    from adapt.backbones.dreamzero.load import compose, load_dit

    told = read_handover(folder)
    check = read_check(folder / HOUSE)
    dtype = DTYPES[check.settings.dtype]
    backbone = DreamZeroBackbone.load(folder / HOUSE).to(device)
    checkpoint = open_checkpoint(folder)
    if told.layout == "dreamzero":
        model = load_dit(checkpoint, backbone.config, device=device, dtype=dtype)
    else:
        if base is None:
            raise UsageError(f"{folder}: a LoRA. Give its base, {told.base_name!r}, with --base DIR.")
        named = {"base_named_by_user": True, "config": backbone.config}
        model = compose(open_checkpoint(base), checkpoint, **named, device=device, dtype=dtype)[0]
    digest = check.samples[0].robot
    if told.channels == "file order":
        _to_slots(model, backbone.space(digest).slots)
    model.eval()
    form = _coarser(check.settings.dtype, check.settings.weights, told.stored)
    robot = backbone.robots[digest].embodiment
    return _compared(check, _act(backbone, model, check.samples, check.settings), robot, form)


def _to_slots(model: nn.Module, slots: Any) -> None:
    """Undo the file order of a loaded model's heads: same as packing columns, states and noise from channel 0 on."""
    from adapt.backbones.dreamzero.channels import REORDERED, file_order
    from adapt.backbones.dreamzero.slots import ACTION_CHANNELS, STATE_CHANNELS

    orders = {"state": file_order(slots.state, STATE_CHANNELS), "action": file_order(slots.action, ACTION_CHANNELS)}
    for name, axis, whose in REORDERED:
        parameter = model.get_parameter(name)
        back = torch.argsort(torch.tensor(orders[whose])).to(parameter.device)
        parameter.data = parameter.data.index_select(axis, back)


def _act(backbone: Backbone, model: nn.Module, samples: Sequence[Latents], settings: Settings) -> Prediction:
    with torch.no_grad():
        return backbone.act(
            model, samples, denoise_steps=settings.denoise_steps, draws=settings.draws, seed=settings.seed
        )


def _shares(check: Check, got: Prediction) -> np.ndarray:
    """Largest difference of each action column as a share of its size, or of all latents; not finite counts as NaN."""
    wanted, found, size = _columns(check, got)
    return np.abs(found - wanted).max(axis=0) / size


def _columns(check: Check, got: Prediction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, columns) wanted and got, and the size of each column: its largest predicted or recorded value."""
    if not check.has_action:
        wanted, found = (p.video.float().numpy().reshape(-1, 1) for p in (check.prediction, got))
        return wanted, found, np.maximum(np.abs(wanted).max(axis=0), 1e-6)
    wanted, found = (np.asarray(p.action, np.float64).reshape(-1, p.action.shape[-1]) for p in (check.prediction, got))
    recorded = np.concatenate([s.action.reshape(-1, wanted.shape[-1]) for s in check.samples])
    size = np.maximum(np.abs(wanted).max(axis=0), np.nan_to_num(np.abs(recorded)).max(axis=0))
    return wanted, found, np.maximum(size, 1e-6)


def _compared(check: Check, got: Prediction, robot: Embodiment, form: str) -> Verified:
    wanted, found, size = _columns(check, got)
    if wanted.shape != found.shape:
        raise DataError(f"it predicts {found.shape} numbers, the trained model {wanted.shape}. Export it again.")
    difference = np.abs(found - wanted).max(axis=0)
    worst = int(np.argmax(np.where(np.isfinite(difference), difference / size, np.inf)))
    unit, name = _named(robot)[worst] if check.has_action else (LATENT_UNIT, "imagined video")
    change = check.settings.change
    return Verified(
        max_difference=float(difference[worst]),
        unit=unit,
        windows=len(check.samples),
        tolerance=float(TOLERANCE[form] * size[worst]),
        component=name,
        form=form,
        proves=change is None or change > TOLERANCE[form],
    )


def _named(robot: Embodiment) -> list[tuple[str, str]]:
    """Unit and name of each action column."""
    return [pair for part in robot.model_action for pair in zip(part.mapped_units, part.labels, strict=True)]


def _coarser(*forms: str) -> str:
    return max(forms, key=lambda form: TOLERANCE[_known_form(form)])


def _known_form(form: str) -> str:
    if form not in TOLERANCE:
        raise ValueError(f"{form!r} is no form of weights")
    return form


def _sample(at: int, window: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Latents:
    prefix = f"{at}.encoded."
    encoded = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    rows = {n: tensors[f"{at}.{n}"].numpy() for n in ROWS}
    return Latents(**window, **rows, encoded=encoded, frames=np.zeros((0, 0, 0, 3), np.uint8))
