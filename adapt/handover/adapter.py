"""The adapter: one directory with everything needed to serve, and the loader that refuses a wrong base.

    adapter.json                    what it is: kind, base fingerprint, robot, time base, recipe, provenance, licences
    embodiment.yaml statistics.json encoder.json encoder.safetensors
    adapter_model.safetensors adapter_config.json     kind `lora`: peft's own files, heads included
    model.safetensors                                 kind `full`: all weights, trained or merged
    check.safetensors               held-out windows and the trained model's predictions on them (`handover`)
    report.json README.md           what the evaluation found; the model card (`card`)

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
CHECK = "check.safetensors"  # encoded recordings: may be taken out of a folder that is passed on


class AdapterRecord(Record):
    """What an adapter directory says of itself.

    Args:
        trained_on: content hashes of the training episodes, a merged base's included, so that nobody judges on them.
        licences: of the data.
        base_licence, base_repo: of the base, where they are on record.
        cameras: (width, height) of the frames as recorded, by camera key.
        instructions: of the training part, each once.
    """

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
    trained_on: tuple[str, ...]
    licences: tuple[str, ...]
    provenance: dict[str, str]
    files: dict[str, str]
    base_licence: str | None = None
    base_repo: str | None = None
    cameras: dict[str, tuple[int, int]] = {}
    instructions: tuple[str, ...] = ()


def read_record(folder: Path) -> AdapterRecord:
    """The record of an adapter directory.

    Raises:
        UsageError: it is none.
        DataError: a file other than the check is missing, or its content differs from the hash.
    """
    path = folder / RECORD
    if not path.exists():
        raise UsageError(f"{folder}: no {RECORD} here, so no adapter. `wam export RUN --out DIR` makes one.")
    record = AdapterRecord.read_json(path)
    for name, digest in record.files.items():
        file = folder / name
        if not file.exists():
            if name == CHECK:
                continue
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
