"""The adapter: one directory with everything needed to serve, and the loader that refuses a wrong base.

    adapter.json                    what it is: kind, base fingerprint, robot, time base, recipe, provenance, licences
    embodiment.yaml statistics.json encoder.json encoder.safetensors
    adapter_model.safetensors adapter_config.json     kind `lora`: peft's own files, heads included
    model.safetensors                                 kind `full`: no pretrained base, all weights
    README.md                       for people

A `full` directory is itself a base: `wam adapt --base DIR` trains LoRA on it.
"""

import os
import shutil
from pathlib import Path
from typing import Any, Literal

from schemas.errors import DataError, UsageError
from schemas.files import file_sha256, write_atomic
from schemas.recipe import TimeBase
from schemas.record import Record

RECORD, FULL, LORA = "adapter.json", "model.safetensors", "adapter_model.safetensors"


class AdapterRecord(Record):
    """What an adapter directory says of itself."""

    schema_id: Literal["wamkit/adapter@1"] = "wamkit/adapter@1"
    kind: Literal["full", "lora"]
    backbone: str
    backbone_version: int
    base_sha256: str
    base_name: str
    weights_sha256: str
    encoder_sha256: str
    robot: str
    robot_sha256: str
    time_base: TimeBase
    recipe: dict[str, Any]
    verdict: str
    reason: str
    trained_on: tuple[str, ...]  # content hashes of the training episodes, so that nobody judges on them
    licences: tuple[str, ...]
    provenance: dict[str, str]
    files: dict[str, str]


def read_record(folder: Path) -> AdapterRecord:
    """The record of an adapter directory.

    Raises:
        UsageError: it is none.
        DataError: a file is missing or its content differs from the hash.
    """
    path = folder / RECORD
    if not path.exists():
        raise UsageError(f"{folder}: no {RECORD} here, so no adapter. `wam export RUN --out DIR` makes one.")
    record = AdapterRecord.read_json(path)
    for name, digest in record.files.items():
        file = folder / name
        if not file.exists():
            raise DataError(f"{file}: is missing. Export the adapter again.")
        if file_sha256(file) != digest:
            raise DataError(f"{file}: content differs from its sha256. Export the adapter again.")
    return record


def refuse_wrong_base(record: AdapterRecord, base_sha256: str, base: str) -> None:
    """Raise unless `base_sha256` is the base that the adapter was trained on."""
    if record.base_sha256 != base_sha256:
        raise DataError(
            f"{base}: is not the base of this adapter (sha256 {base_sha256[:12]}, wanted {record.base_sha256[:12]}, "
            f"{record.base_name}). Composed on another base it would act wrongly; give the right --base."
        )


def write_folder(out: Path, files: dict[str, bytes], record: dict[str, Any]) -> AdapterRecord:
    """Write an adapter directory atomically: files, then the record with their hashes, then the name.

    Raises:
        UsageError: `out` exists.
    """
    if out.exists():
        raise UsageError(f"{out}: exists already. Give a new --out.")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, content in files.items():
        write_atomic(partial / name, content)
    hashes = {p.name: file_sha256(p) for p in sorted(partial.iterdir())}
    complete = AdapterRecord(**record, files=hashes)
    complete.write_json(partial / RECORD)
    os.replace(partial, out)
    return complete


def card(record: dict[str, Any], notes: tuple[str, ...]) -> str:
    """README.md of an adapter: what it is, what it can do, what it may be used for."""
    licences = ", ".join(record["licences"]) or "unknown"
    lines = [
        "---",
        "library_name: wamkit",
        "tags: [robotics, world-action-model]",
        "---",
        f"# {record['robot']} on {record['backbone']}",
        "",
        f"**{record['verdict']}**: {record['reason']}",
        "",
        "Judged offline on held-out episodes only. It says nothing about a robot in the loop.",
        "",
        f"- kind: {record['kind']}" + (" (all weights: no pretrained base)" if record["kind"] == "full" else ""),
        f"- base: {record['base_name']}, sha256 {record['base_sha256'][:16]}",
        f"- robot: `embodiment.yaml`, statistics: `statistics.json`, chunk {record['time_base'].chunk_s:g} s",
        f"- licences of the data it was trained on: {licences}. Weights derived from data carry its terms.",
        *(f"- {n}" for n in notes),
        "",
        "Load it with `adapt.export.load_adapter(folder)`; it checks hashes and the base.",
    ]
    return "\n".join(lines) + "\n"
