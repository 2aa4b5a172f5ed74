"""The model card of an adapter: README.md with the header that model hubs read.

Verdict first, then data, recipe, metrics beside every baseline, what it is not, licences and what follows from them,
how to load it, hashes. Written from `adapter.json` and `report.json` alone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from adapt.handover.released import KNOWN, NON_COMMERCIAL, consequence
from adapt.report.styles import style_of
from schemas.report import ActionScore, Measure, Report, VideoScore

SHOWN_INSTRUCTIONS = 8
HUB_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0")
LOADING = {
    "adapter": """Load it with wamkit:

```python
from pathlib import Path
from adapt.handover.export import load_adapter

backbone, model, robot, record = load_adapter(Path("{folder}"){base})
prediction = backbone.act(model, samples, denoise_steps={steps}, draws=1, seed=0)
```

It checks every hash{and_base}. `wam export {folder} --verify{base_option}` lets it act on the windows in
`check.safetensors` and compares with the trained model.""",
    "peft": """```python
import torch
from peft import PeftModel
from pathlib import Path
from adapt.backbones.dreamzero.checkpoint import open_checkpoint
from adapt.backbones.dreamzero.load import load_dit

base = load_dit(open_checkpoint(Path("BASE")), dtype=torch.bfloat16)
model = PeftModel.from_pretrained(base, "{folder}")
```

Channels are {channels}. `wam export {folder} --verify --base BASE` compares it with the trained model.""",
    "dreamzero": """The folder is a whole checkpoint in the released layout, the adapter merged in, encoders included.
The public reference loads it as any released one. Channels are {channels}. In wamkit:

```python
from pathlib import Path
from adapt.backbones.dreamzero.checkpoint import open_checkpoint
from adapt.backbones.dreamzero.load import load_dit

model = load_dit(open_checkpoint(Path("{folder}")))
```

`wam export {folder} --verify` compares it with the trained model.""",
    "dreamzero-lora": """The folder is the public reference's LoRA-only save. Its servers put a LoRA on raw Wan,
whatever it was trained on: serve it so only if its base is raw Wan, else export `--to dreamzero`. Channels are
{channels}. In wamkit:

```python
from pathlib import Path
from adapt.backbones.dreamzero.checkpoint import open_checkpoint
from adapt.backbones.dreamzero.load import compose

model, checked = compose(open_checkpoint(Path("BASE")), open_checkpoint(Path("{folder}")), base_named_by_user=True)
```

`wam export {folder} --verify --base BASE` compares it with the trained model.""",
}
CHANNELS = {
    "file order": "in file order, as the reference's servers join them; wamkit's own slots of the base no longer hold",
    "slots": "the base's slots that it was trained on",
    "": "not used: the robot has no actions",
}


def card(
    record: Mapping[str, Any],
    report: Report | None,
    *,
    layout: str = "adapter",
    channels: str = "slots",
    has_check: bool = True,
) -> str:
    """README.md of an exported folder.

    Args:
        record: fields of `AdapterRecord`, `files` not needed.
        report: None where an older adapter holds none: the metrics are left out, and it says so.
        layout: `adapter`, or as `wam export --to` calls it.
        channels: `slots` or `file order`, of the other layouts.
    """
    parts = [
        _header(record, layout),
        f"# {record['robot']} on {record['backbone']}",
        f"**{record['verdict']}**: {record['reason']}.".replace("..", "."),
        "Judged offline on held-out episodes. No robot has moved: what it does in the loop is not known.",
        _section("Data", _data(record, report)),
        _section("Recipe", _recipe(record, report)),
        "## Metrics\n\n" + _metrics(report),
        _section("What it is not", _limits(record, report)),
        _section("Licences", _licences(record)),
        "## How to load it\n\n" + _loading(record, layout, channels, has_check=has_check),
        _section("Hashes", _hashes(record, layout)),
    ]
    return "\n\n".join(parts) + "\n"


def base_licence(name: str) -> str | None:
    """Licence of a base that has no record, by its name; what descends from DROID may not be used commercially."""
    known = KNOWN.get(name)
    if known is not None:
        return known.licence
    return NON_COMMERCIAL if "droid" in name.lower() else None


def _section(title: str, lines: Sequence[str]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {line}" for line in lines)


def _header(record: Mapping[str, Any], layout: str) -> str:
    kind = "lora" if record["kind"] == "lora" and layout != "dreamzero" else "full-weights"
    lines = ["---", f"library_name: {'peft' if layout == 'peft' else 'wamkit'}", "pipeline_tag: robotics"]
    lines += [f"license: {_hub_licence(record)}"]
    if _hub_licence(record) == "other":
        lines += ["license_name: see-below"]
    if repo := record.get("base_repo"):
        lines += [f"base_model: {repo}", f"base_model_relation: {'adapter' if kind == 'lora' else 'finetune'}"]
    tags = ("robotics", "world-action-model", record["backbone"], kind)
    lines += ["tags:", *(f"- {tag}" for tag in tags), "---"]
    return "\n".join(lines)


def _terms(record: Mapping[str, Any]) -> list[str]:
    """All licences that weights and data carry; "" for one that is not known."""
    own = [x if x != "unknown" else "" for x in record["licences"]] or [""]
    return own + ([record.get("base_licence") or ""] if _is_derived(record) else [])


def _hub_licence(record: Mapping[str, Any]) -> str:
    terms = {term.lower() for term in _terms(record)}
    if any("-nc" in term for term in terms):
        return "cc-by-nc-4.0" if all("-nc" not in t or t == "cc-by-nc-4.0" for t in terms) else "other"
    return terms.pop() if len(terms) == 1 and terms <= set(HUB_LICENCES) else "other"


def _is_derived(record: Mapping[str, Any]) -> bool:
    return record["kind"] == "lora" or record["base_name"].startswith("merged")


def _data(record: Mapping[str, Any], report: Report | None) -> list[str]:
    lines = [f"robot: {record['robot']}, described in `embodiment.yaml` (sha256 {record['robot_sha256'][:16]})"]
    if report is not None:
        lines += [
            f"{name}: {len(p.episodes)} episodes, {p.minutes:.1f} min, {p.windows} windows"
            for name, p in report.split.items()
        ]
        if report.rejects:
            told = ", ".join(f"{len(v)} for {k}" for k, v in report.rejects.items())
            lines.append(f"rejected episodes: {told}")
    said = [text for text in record.get("instructions", ()) if text]
    if said:
        quoted = ", ".join(f'"{text}"' for text in said[:SHOWN_INSTRUCTIONS])
        more = f", ... ({len(said)} in all)" if len(said) > SHOWN_INSTRUCTIONS else ""
        lines.append(f"instructions: {quoted}{more}")
    if record.get("cameras"):
        sizes = ", ".join(f"{key} {size[0]}x{size[1]}" for key, size in record["cameras"].items())
        lines.append(f"cameras: {sizes}")
    return lines


def _recipe(record: Mapping[str, Any], report: Report | None) -> list[str]:
    recipe, base = record["recipe"], record["base_name"]
    time_base = record["time_base"]
    chunk = time_base.chunk_s if hasattr(time_base, "chunk_s") else time_base["chunk_s"]
    lines = [f"base: {base}" + (f" ({record['base_repo']})" if record.get("base_repo") else "")]
    lora = recipe.get("lora")
    if lora and _is_derived(record):
        extra = " (rank-stabilised)" if lora.get("rslora") else ""
        lines.append(f"LoRA: rank {lora['rank']}, alpha {lora['alpha']:g}{extra}; heads trained in full")
    lines.append(f"learning rate {recipe.get('lr')}, batch {recipe.get('batch')}, chunk of {chunk:g} s")
    if report is not None and report.training is not None:
        told = report.training
        kept = f", weights of step {told.chosen_step}" + (f" ({told.chosen})" if told.chosen else "")
        lines.append(f"{told.steps} steps in {told.seconds:.0f} s{kept}")
        lines.append(f"{told.trainable_parameters:,} of {told.total_parameters:,} parameters trained")
        if told.rung:
            lines.append(f"computed with: {told.rung}")
    return lines


def _metrics(report: Report | None) -> str:
    if report is None:
        return "No report lies beside this adapter. `wam eval` makes one."
    parts = []
    if report.action is not None:
        parts += [_errors(report.action), _components(report.action)]
    if report.video is not None:
        parts.append(_video(report.video))
    return "\n\n".join(parts) or "Nothing was judged: no episode was held out."


def _errors(action: ActionScore) -> str:
    names = tuple(action.error)
    rows = [["", "mean absolute error", "model minus it, 95 % interval"]]
    for name in sorted(names, key=lambda n: (not math.isfinite(action.error[n]), action.error[n])):
        paired = action.paired.get(name)
        against = f"{paired.difference:+.4g} ({paired.low:+.4g} to {paired.high:+.4g})" if paired else ""
        label = style_of(name, names).label
        rows.append([f"**{label}**" if name == "model" else label, f"{action.error[name]:.4g}", against])
    head = f"Commands of {action.windows} held-out windows, {action.steps} steps each; lower is better."
    return head + "\n\n" + _table(rows)


def _components(action: ActionScore) -> str:
    rows = [["component", "unit", "model", "standing still", "amplitude (1 is right)", "gripper F1"]]
    for part in action.components:
        still = part.error.get("stand_still", float("nan"))
        f1 = _measured(part.gripper_f1)
        values = [f"{part.error['model']:.4g}", f"{still:.4g}", f"{part.amplitude_ratio:.2f}", f1]
        rows.append([part.name, part.unit, *values])
    return _table(rows)


def _video(video: VideoScore) -> str:
    names = tuple(video.psnr)
    rows = [["video, teacher-forced", "PSNR, dB", "SSIM"]]
    for name, psnr in video.psnr.items():
        ssim = f"{video.ssim[name]:.3f}" if name in video.ssim else "not measured"
        rows.append([style_of(name, names).label, f"{psnr:.2f}", ssim])
    return _table(rows)


def _measured(measure: Measure) -> str:
    return "" if measure.value is None else f"{measure.value:.2f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    first, *rest = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([first, "|" + "---|" * len(rows[0]), *rest])


def _limits(record: Mapping[str, Any], report: Report | None) -> list[str]:
    lines = [
        "tested on a robot: errors against recorded commands say nothing of what happens once it acts on its own",
        "a safety system: it knows no limits of force, speed or workspace but those in its data",
        f"for another robot, other cameras or camera places, or another control rate than {record['robot']}'s",
    ]
    if record["verdict"] != "OFFLINE PASS":
        lines.insert(0, f"shown to be better than standing still: the verdict is {record['verdict']}")
    if report is not None and report.action is None:
        lines.insert(0, "a controller: it has not been judged on actions")
    return lines + [f"also noted: {note}" for note in (report.notes if report is not None else ())]


def _licences(record: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in record["licences"] or ("unknown",):
        if name == "unknown":
            lines.append("data: licence unknown. Ask whoever recorded it before you pass these weights on")
        elif "-NC" in name.upper():
            lines.append(f"data: {name}. Not for commercial use, and weights trained on it are derived from it")
        else:
            lines.append(f"data: {name}. Weights trained on it carry its terms, naming its authors for one")
    if _is_derived(record):
        told = record.get("base_licence")
        lines.append(f"base {record['base_name']}, {told + ': ' if told else 'licence '}{consequence(told)}")
    else:
        lines.append("base: none, so no licence of another model applies")
    return lines


def _loading(record: Mapping[str, Any], layout: str, channels: str, *, has_check: bool) -> str:
    is_lora = record["kind"] == "lora"
    words = LOADING[layout].format(
        folder="FOLDER",
        base=', Path("BASE")' if is_lora else "",
        base_option=" --base BASE" if is_lora else "",
        and_base=f" and that BASE is {record['base_name']}" if is_lora else "",
        steps=record["recipe"].get("denoise_steps", 16),
        channels=CHANNELS.get(channels, channels),
    )
    if not has_check:
        return words + "\n\nNo check was exported with it, so it cannot be verified."
    return (
        f"{words}\n\nThe check holds a few held-out windows of the data in encoded form, which a decoder turns back "
        "into pictures. Take `check.safetensors` out of what you publish if the recordings must not be seen."
    )


def _hashes(record: Mapping[str, Any], layout: str) -> list[str]:
    listed = "`adapter.json`" if layout == "adapter" else "`wamkit/handover.json`"
    return [
        f"trained weights: {record['weights_sha256']}",
        f"base: {record['base_sha256']}",
        f"encoders: {record['encoder_sha256']}",
        f"every file, and the training episodes by content: {listed}"
        + ("" if layout == "adapter" else " and `wamkit/adapter.json`"),
    ]
