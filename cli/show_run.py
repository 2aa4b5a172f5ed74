"""`wam show RUN`: where a run is, from its files alone, while it runs and after.

Reads the run's log and small records, and the kernel's list of locks; opens nothing for writing, takes no lock and
imports no torch.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from adapt.stage import DONE, STARTED, Stage
from adapt.training.curves import CURVES, Curves
from adapt.training.log import LOG, LogReader
from adapt.training.watch import Facts, Pace, is_new_call
from cli import console
from cli.bars import ends_words, figure, held_out_words, loss_words
from schemas.errors import DataError, UsageError

SHARDS, STAGES = ("shards", "video_shards"), ("latents", "train", "eval", "adapter")
LOCKS = Path("/proc/locks")
REFRESH_S = 2.0
WIDTH = 40  # of the little curve
NOTES = 5  # the newest that are printed
RECENT_S = 120.0  # a log that was written to since is that of a process that lives, perhaps elsewhere
TICK = ("step", "steps", "loss", "parts", "val_error", "hold", "resumed_from", "seconds", "wait_share", "samples")


def show_run(path: Path, *, json: bool, watch: bool = False) -> None:
    """Print where a run is; with `watch`, again and again until it is done.

    Raises:
        UsageError: there is no terminal to watch it in.
    """
    view = RunView(path)
    if watch:
        _watch(view)
    elif json:
        console.as_json(view.look())
    else:
        for line in lines_of(view.look(), datetime.now()):
            console.out(line)


def _watch(view: "RunView") -> None:
    import sys

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    if not sys.stdout.isatty():
        raise UsageError("--watch refreshes a terminal, and there is none. Use --json, as often as you like.")
    with suppress(KeyboardInterrupt), Live(console=Console(), auto_refresh=False) as live:
        while True:
            facts = view.look()
            live.update(Text("\n".join(lines_of(facts, datetime.now()))), refresh=True)
            if all(s["state"] == "done" for s in facts["stages"].values()):
                return
            time.sleep(REFRESH_S)


@dataclass
class RunView:
    """A run folder that is looked at once or many times; of its log only what is new is read."""

    path: Path
    _reader: LogReader | None = None
    _log: "_Log" = field(default_factory=lambda: _Log())

    def look(self, now: float | None = None) -> dict[str, Any]:
        """Everything there is to say; `now` is seconds since 1970."""
        now = time.time() if now is None else now
        self._reader = self._reader or LogReader(self.path / "train" / LOG)
        for line in self._reader.new():
            self._log.add(line)
        shards = [name for name in SHARDS if (self.path / name).is_dir()]
        pids = {name: lock_holder(self.path / name) for name in (*shards, ".")}
        stages = {name: _shards(self.path / name, is_held=pids[name] is not None) for name in shards}
        stages |= {name: _stage(self.path / name, is_held=pids["."] is not None) for name in STAGES}
        pid = next((p for p in pids.values() if p is not None), None)
        facts = {"run": str(self.path), "stages": stages, "pid": pid}
        return facts | self._training(now, stages["train"]) | _verdict(self.path)

    def _training(self, now: float, stage: dict[str, Any]) -> dict[str, Any]:
        curves = _curves(self.path / "train")
        log, facts = self._log, {}
        losses = log.losses or [(p.step, p.value) for p in (curves.loss if curves else ())]
        if losses:
            facts |= {"step": losses[-1][0], "loss": losses[-1][1], "curve": _thinned([v for _, v in losses])}
        errors = {p.step: p.value for p in (curves.val_error if curves else ())} | log.errors
        if errors:
            best = min(errors, key=lambda step: (errors[step], step))
            facts["held_out"] = {"step": max(errors), "error": errors[max(errors)], "hold": log.hold}
            facts["held_out"] |= {"best_step": best, "best_error": errors[best]}
        if log.last is not None:
            facts |= self._progress(log, now, stage)
        if curves is not None and curves.seconds:
            facts["trained_s"] = curves.seconds
        return facts | {"checkpoint": _checkpoint(self.path / "train", now), "notes": log.notes}

    def _progress(self, log: "_Log", now: float, stage: dict[str, Any]) -> dict[str, Any]:
        tick, age = log.last, now - _time_of(self.path / "train" / LOG)
        facts = {"step": tick.step, "steps": tick.steps, "parts": tick.parts, "resumed_from": tick.resumed_from}
        facts |= {"peak_bytes": tick.peak_bytes, "last_line_s": max(0.0, age)}
        began = stage.get("since_unix_s")
        if stage["state"] == "done" or (began is not None and now - age < began):
            return facts  # the newest line is of an earlier call
        rate = log.pace.samples_per_s
        facts |= {"windows_per_s": rate, "wait_share": log.pace.wait_share}
        if rate:
            facts |= {"tokens_per_s": log.facts.tokens and rate * log.facts.tokens, "mfu": log.facts.mfu(rate)}
        return facts | {"left_s": log.pace.left_s(tick), "encoded_per_s": log.pace.encoded_per_s}


@dataclass
class _Log:
    """What the lines of a log come to; where a run was resumed, steps that were abandoned are forgotten."""

    losses: list[tuple[int, float]] = field(default_factory=list)
    errors: dict[int, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    facts: Facts = field(default_factory=Facts)
    last: Any = None
    hold: float | None = None

    def add(self, line: dict[str, Any]) -> None:
        if "note" in line:
            self.notes.append(str(line["note"]))
        if "facts" in line:
            self.facts = Facts(**line["facts"])
        if all(name in line for name in TICK):
            self._tick(SimpleNamespace(**{"encoded": 0, "peak_bytes": 0} | line))

    def _tick(self, tick: Any) -> None:
        resumed = self.last is None or is_new_call(self.last, tick)
        if resumed:
            while self.losses and self.losses[-1][0] >= tick.step:
                self.losses.pop()
            self.errors = {step: e for step, e in self.errors.items() if step < tick.step}
        before = self.last.val_error if self.last is not None and not resumed else None
        is_old = resumed and tick.resumed_from > 0  # the error of a step before
        if tick.val_error is not None and tick.val_error != before and not is_old:
            self.errors[tick.step] = tick.val_error
        if tick.loss is not None:
            self.losses.append((tick.step, tick.loss))
        self.pace.add(tick)
        self.last, self.hold = tick, tick.hold


def lines_of(facts: dict[str, Any], now: datetime) -> list[str]:
    """The report of a run, line by line."""
    stages = facts["stages"]
    lines = [f"run {facts['run']}: {_state(facts)}"]
    lines += _aligned([(name, _stage_words(stage, now)) for name, stage in stages.items()])
    rows = list(_rows(facts, now))
    return lines + (["", *_aligned(rows)] if rows else [])


def _state(facts: dict[str, Any]) -> str:
    if all(s["state"] == "done" for s in facts["stages"].values()):
        return "complete"
    if facts["pid"] is not None:
        return f"process {facts['pid']} works on it"
    if facts.get("last_line_s", RECENT_S) < RECENT_S:
        return "no process of this machine works on it; its log was written to a moment ago"
    return "no process of this machine works on it; the same `wam adapt` goes on where it stopped"


def _stage_words(stage: dict[str, Any], now: datetime) -> str:
    if stage["state"] == "done":
        return "done" + (f" in {console.duration(stage['seconds'])}" if "seconds" in stage else "")
    if "since_unix_s" not in stage:
        return stage["state"]
    since = datetime.fromtimestamp(stage["since_unix_s"])
    day = "" if since.date() == now.date() else f"{since:%d %b} "
    so_far = f" ({console.duration((now - since).total_seconds())})" if stage["state"] == "running" else ""
    return f"{stage['state']}, {'since' if so_far else 'begun'} {day}{since:%H:%M}{so_far}"


def _rows(facts: dict[str, Any], now: datetime) -> Iterator[tuple[str, str]]:
    if "step" in facts:
        of = f" of {facts['steps']:,} ({100 * facts['step'] / facts['steps']:.0f} %)" if facts.get("steps") else ""
        again = f", resumed from {facts['resumed_from']:,}" if facts.get("resumed_from") else ""
        yield "step", f"{facts['step']:,}{of}{again}"
    if "loss" in facts:
        words = loss_words(facts["loss"], facts.get("parts") or {}).removeprefix("loss ")
        yield "loss", f"{words}  {spark(facts['curve'])}"
    if "held_out" in facts:
        yield "held out", _held_out(facts["held_out"], is_known="steps" in facts)
    if facts.get("windows_per_s"):
        encoding = f", encoding {figure(facts['encoded_per_s'])} windows/s" if facts["encoded_per_s"] else ""
        words = f"{figure(facts['windows_per_s'])} windows/s over the last minute of training"
        words += f", {figure(facts['tokens_per_s'])} tokens/s" if facts.get("tokens_per_s") else ""
        words += f", MFU {100 * facts['mfu']:.0f} %" if facts.get("mfu") else ""
        yield "speed", f"{words}, data wait {100 * facts['wait_share']:.0f} %{encoding}"
    if facts.get("peak_bytes"):
        yield "memory", f"{facts['peak_bytes'] / 1e9:.1f} GB at most on a GPU"
    if facts["stages"]["train"]["state"] == "running" and facts.get("left_s") is not None:
        yield "left", ends_words(facts["left_s"], now).replace(" left,", ",") + " (training)"
    if "last_line_s" in facts and facts["stages"]["train"]["state"] != "done":
        yield "last line", f"{console.duration(facts['last_line_s'])} ago"
    if facts["checkpoint"] is not None:
        saved = facts["checkpoint"]
        size = console.megabytes(saved["bytes"]) if saved["bytes"] < 1e9 else f"{saved['bytes'] / 1e9:.1f} GB"
        yield "checkpoint", f"step {saved['step']:,}, {console.duration(saved['age_s'])} ago, {size}"
    if len(facts["notes"]) > NOTES:
        yield "notes", f"{len(facts['notes']) - NOTES} earlier ones in train/{LOG}"
    yield from (("notes", words) for words in facts["notes"][-NOTES:])
    yield from ((key, facts[key]) for key in ("verdict", "reason", "report") if key in facts)


def _held_out(found: dict[str, Any], *, is_known: bool) -> str:
    """Without a log it is not known what standing still would give."""
    words = held_out_words(found["error"], found["hold"]) if is_known else f"{found['error']:.4f}"
    words = words.removeprefix("held-out ")
    best = f"best {found['best_error']:.4f} at step {found['best_step']:,}"
    if found["hold"]:
        less = 100 * (1 - found["best_error"] / found["hold"])
        best += f" ({abs(less):.0f} % {'below' if less >= 0 else 'above'} standing still)"
    return f"{words} at step {found['step']:,}, {best}"


def _aligned(rows: list[tuple[str, str]]) -> list[str]:
    margin = max(len(label) for label, _ in rows) + 2
    labels = [label for label, _ in rows]
    shown = ["" if label in labels[:at][-1:] else label for at, label in enumerate(labels)]
    return [f"{label:<{margin}}{words}" for label, (_, words) in zip(shown, rows, strict=True)]


def spark(values: list[float]) -> str:
    """A curve in one line of text, lowest to highest."""
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    steps = "▁▂▃▄▅▆▇█"
    return "".join(steps[int((len(steps) - 1) * (v - low) / (high - low))] if high > low else steps[0] for v in values)


def _thinned(values: list[float]) -> list[float]:
    """At most WIDTH means over neighbours."""
    size = max(1, -(-len(values) // WIDTH))
    groups = [values[i : i + size] for i in range(0, len(values), size)]
    return [sum(g) / len(g) for g in groups]


def _stage(folder: Path, *, is_held: bool) -> dict[str, Any]:
    """`done`, `running`, `stopped` (begun, and no process works on it) or `not begun`."""
    if (folder / DONE).exists():
        facts = Stage.read_json(folder / DONE).facts
        return {"state": "done"} | {k: facts[k] for k in ("seconds",) if k in facts}
    if not (folder / STARTED).exists():
        return {"state": "not begun"}
    return {"state": "running" if is_held else "stopped", "since_unix_s": _time_of(folder / STARTED)}


def _shards(folder: Path, *, is_held: bool) -> dict[str, Any]:
    if (folder / "manifest.json").exists():
        return {"state": "done"}
    return {"state": "running" if is_held else "stopped"}


def lock_holder(folder: Path) -> int | None:
    """The process that writes in `folder`, from the kernel's list; None if there is none on this machine.

    Takes no lock itself: for as long as it held one, a run that starts would be refused.
    """
    try:
        inode = (folder / ".lock").stat().st_ino
        held = [line.split() for line in LOCKS.read_text().splitlines()]
    except OSError:
        return None
    for words in held:
        if "FLOCK" in words and "->" not in words and words[-3].rpartition(":")[2] == str(inode):
            pid = int(words[-4])
            if _has_open(pid, folder / ".lock"):
                return pid
    return None


def _has_open(pid: int, file: Path) -> bool:
    """Whether a process has a file open; true where that cannot be seen, since inodes of two disks seldom agree."""
    found = file.stat()
    try:
        for handle in os.scandir(f"/proc/{pid}/fd"):
            try:
                if os.path.samestat(handle.stat(), found):
                    return True
            except OSError:
                continue
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _checkpoint(folder: Path, now: float) -> dict[str, Any] | None:
    """The newest whole checkpoint; None if there is none, or it went while it was looked at."""
    found = sorted(p for p in folder.glob("step-*") if p.suffix == "" and p.is_dir())
    if not found:
        return None
    try:
        size = sum(f.stat().st_size for f in found[-1].iterdir())
        age = max(0.0, now - found[-1].stat().st_mtime)
    except OSError:
        return None
    return {"step": int(found[-1].name.removeprefix("step-")), "age_s": age, "bytes": size, "path": str(found[-1])}


def _curves(folder: Path) -> Curves | None:
    try:
        return Curves.read_json(folder / CURVES) if (folder / CURVES).exists() else None
    except DataError:
        return None


def _time_of(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _verdict(path: Path) -> dict[str, Any]:
    file = path / "eval" / "report.json"
    if not file.exists():
        return {}
    try:
        report = json.loads(file.read_bytes())
        return {k: report[k] for k in ("verdict", "reason")} | {"report": str(path / "eval" / "report.html")}
    except (ValueError, KeyError):
        raise DataError(f"{file}: cannot be read. Delete the eval folder and run again.") from None
