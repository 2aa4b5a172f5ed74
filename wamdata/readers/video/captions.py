"""What stands beside a film: its instruction, or captions with spans.

    pour.txt                       the instruction
    pour.json                      "Pour.", {"caption": "Pour."}, or {"captions": [{"start": 0, "end": 2, "text": ...}]}
    pour.srt, pour.vtt             captions with spans (through pysubs2)
    metadata.jsonl, metadata.csv   a line per film of the folder: `file_name` and a caption (Hugging Face's videofolder)

Times are seconds from the first frame. One caption over the whole film is its task; several are sub-tasks.
"""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from schemas.episode import Finding, Text
from schemas.errors import first_line
from wamdata.extras import need
from wamdata.source import Source

CAPTION_FIELDS = ("caption", "text", "task", "instruction", "prompt", "label")
SPAN_FIELDS = (("start", "end"), ("start_s", "end_s"), ("start_s", "stop_s"), ("from", "to"), ("begin", "end"))
SUFFIXES = (".txt", ".json", ".srt", ".vtt")
TABLES = ("metadata.jsonl", "metadata.csv")
ORIGIN = "caption"

Spans = list[tuple[str, float | None, float | None]]  # text, start and end in seconds; None: the film's own


def sidecars(name: str) -> tuple[str, ...]:
    """Files that may hold the captions of a film, most telling first."""
    path = PurePosixPath(name)
    beside = [path.with_suffix(suffix) for suffix in SUFFIXES]
    return tuple(p.as_posix() for p in (*beside, *(path.with_name(table) for table in TABLES)))


def read_captions(source: Source, name: str, key: str, stop_ns: int) -> tuple[tuple[Text, ...], list[Finding]]:
    """Texts of a film of `stop_ns` length, none where nothing stands beside it; a broken sidecar is a finding."""
    for sidecar in sidecars(name):
        if not source.has(sidecar):
            continue
        where = source.where(sidecar)
        try:
            spans = _spans(sidecar, source.path(sidecar).read_text(encoding="utf-8-sig"), PurePosixPath(name).name)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"{where} is not a caption file ({first_line(error)}). Mend it"
            return (), [Finding("bad_caption", "warning", key, message)]
        if spans is None:
            continue  # a table that does not name this film
        texts = _texts(spans, stop_ns)
        if texts:
            return texts, []
        message = f"{where} holds no instruction. Write one, or take the file away"
        return (), [Finding("blank_text", "warning", key, message)]
    return (), []


def _spans(sidecar: str, content: str, film: str) -> Spans | None:
    """What a sidecar says of a film; None of a table that does not name it."""
    path = PurePosixPath(sidecar)
    if path.name in TABLES:
        return _of_table(path.suffix, content, film)
    match path.suffix:
        case ".txt":
            return [(content, None, None)]
        case ".json":
            return _of_json(json.loads(content))
        case _:
            subtitles = need("pysubs2", for_what=f"reading {path.suffix} captions").SSAFile.from_string(content)
            return [(event.plaintext, event.start / 1e3, event.end / 1e3) for event in subtitles if event.is_text]


def _of_json(content: Any) -> Spans:
    if isinstance(content, str):
        return [(content, None, None)]
    listed = content if isinstance(content, list) else content.get("captions") or content.get("segments")
    if isinstance(listed, list):
        return [span for entry in listed for span in _of_entry(entry)]
    return _of_entry(content)


def _of_entry(entry: Any) -> Spans:
    if isinstance(entry, str):
        return [(entry, None, None)]
    text = next((entry[field] for field in CAPTION_FIELDS if isinstance(entry.get(field), str)), "")
    for first, last in SPAN_FIELDS:
        if first in entry and last in entry:
            return [(text, float(entry[first]), float(entry[last]))]
    return [(text, None, None)]


def _of_table(suffix: str, content: str, film: str) -> Spans | None:
    rows: Iterable[dict[str, Any]] = (
        (json.loads(line) for line in content.splitlines() if line.strip())
        if suffix == ".jsonl"
        else csv.DictReader(io.StringIO(content))
    )
    mine = [row for row in rows if PurePosixPath(str(row.get("file_name", ""))).name == film]
    return [span for row in mine for span in _of_json(row)] if mine else None


def _texts(spans: Spans, stop_ns: int) -> tuple[Text, ...]:
    texts = []
    for text, start_s, end_s in spans:
        start, stop = round((start_s or 0.0) * 1e9), stop_ns if end_s is None else min(round(end_s * 1e9), stop_ns)
        if (plain := " ".join(text.split())) and 0 <= start < stop:
            texts.append(Text(plain, start, stop, "subtask" if start_s is not None else "task", ORIGIN))
    return tuple(texts)
