"""The layouts in which checkpoints come: which files belong together, and what kind their names make them.

dreamzero        the released layout: DiT and encoders under `action_head.`
wan              a raw Wan DiT: bare names, no heads; the encoders beside it are .pth files, which are not opened
dreamzero-both   the reference's save without save_lora_only: wrapped DiT, LoRA beside the weights, and encoders
dreamzero-lora   the reference's LoRA-only save: LoRA and heads under `action_head.model.base_model.model.`
peft             peft's own adapter folder
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from adapt.backbones.dreamzero.names import MODEL, WRAPPED, canonical, is_head
from adapt.backbones.dreamzero.shards import SUFFIX, Entry, read_header
from schemas.errors import DataError

Kind = Literal["dreamzero", "dreamzero-both", "wan", "dreamzero-lora", "peft"]
STEMS = ("model", "diffusion_pytorch_model", "adapter_model")
NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")


def find_files(path: Path) -> tuple[list[Path], Path | None]:
    """The safetensors files of a checkpoint, and the index that names them, if there is one."""
    if path.is_file():
        if path.suffix != SUFFIX:
            raise DataError(f"{path}: is no safetensors file. Give a checkpoint's folder, or convert it first.")
        return [path], None
    for stem in STEMS:
        index = path / f"{stem}{SUFFIX}.index.json"
        if index.exists():
            names = sorted(set(_weight_map(index).values()))
            gone = [name for name in names if not (path / name).exists()]
            if gone:
                raise DataError(
                    f"{index}: {len(gone)} of {len(names)} shards are missing: {_some(gone)}. Fetch them again."
                )
            return [path / name for name in names], index
        numbered = sorted(path.glob(f"{stem}-*{SUFFIX}"))
        if numbered:
            return _numbered(path, numbered), None
        if (path / f"{stem}{SUFFIX}").exists():
            return [path / f"{stem}{SUFFIX}"], None
    seen = sorted(p.name for p in path.iterdir())
    raise DataError(
        f"{path}: holds no checkpoint: no {', '.join(s + SUFFIX for s in STEMS)} and no index of one; "
        f"it holds {_some(seen) or 'nothing'}. Give the folder with the safetensors files."
    )


def _numbered(path: Path, files: list[Path]) -> list[Path]:
    found = [match for file in files if (match := NUMBERED.fullmatch(file.name))]
    count = int(found[0][3]) if found else len(files)
    wanted = {f"{found[0][1]}-{k + 1:05d}-of-{count:05d}{SUFFIX}" for k in range(count)} if found else set()
    if gone := sorted(wanted - {file.name for file in files}):
        raise DataError(f"{path}: {len(gone)} of {count} shards are missing: {_some(gone)}. Fetch them again.")
    return files


def read_headers(files: list[Path]) -> tuple[dict[str, Entry], dict[str, str]]:
    """Entries of all files by saved name, and the metadata of the first."""
    entries: dict[str, Entry] = {}
    first: dict[str, str] = {}
    for at, file in enumerate(files):
        held, metadata = read_header(file)
        first = metadata if at == 0 else first
        if twice := sorted(held.keys() & entries.keys()):
            raise DataError(f"{file}: {_some(twice)} is in another shard too. Remove shards of another save.")
        entries |= held
    return entries, first


def check_index(index: Path, entries: Mapping[str, Entry]) -> None:
    """Raise unless every tensor lies in the file that the index says."""
    places = _weight_map(index)
    wrong = [n for n, file in places.items() if n not in entries or entries[n].file.name != file]
    if wrong:
        raise DataError(f"{index}: {_some(wrong)} is not in the shard that it names. Fetch the checkpoint again.")


def _weight_map(index: Path) -> dict[str, str]:
    values = read_json(index) or {}
    if not isinstance(values.get("weight_map"), dict):
        raise DataError(f"{index}: has no weight_map. Fetch the file again.")
    return values["weight_map"]


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file."""
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path}: is no JSON ({error}). Fetch the file again.") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: is not a JSON object. Fetch the file again.")
    return values


def kind_of(path: Path, saved: list[str]) -> Kind:
    """Kind of the checkpoint that has tensors of these names."""
    if any(name.startswith(MODEL) and ".lora_" in name for name in saved):
        alone = all(".lora_" in name or is_head(canonical(name)) for name in saved)
        return "dreamzero-lora" if alone else "dreamzero-both"
    if any(name.startswith(MODEL) for name in saved):
        return "dreamzero"
    if any(name.startswith(WRAPPED) for name in saved):
        return "peft"
    if "patch_embedding.weight" in saved and "blocks.0.self_attn.q.weight" in saved:
        return "wan"
    hint = "a diffusers layout: fetch the original Wan files" if "proj_out.weight" in saved else "no layout known here"
    raise DataError(
        f"{path}: {len(saved)} tensors such as {_some(saved[:3])}: {hint}. Give a DreamZero or Wan checkpoint."
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names)} in all)" if len(names) > 5 else "")
