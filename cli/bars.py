"""How `wam adapt` shows a run: one line per stage in a terminal, a line every half minute in a batch system's log.

What is said once (notes, finished stages) is printed above the line that moves, and stays. Speeds are moving means
(`adapt.training.watch.Pace`). Off a terminal nothing is ever overwritten, whatever colours are forced.
"""

import math
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from cli.console import duration

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

    from adapt.run import Watch
    from adapt.training.loop import Tick
    from adapt.training.watch import Facts, Pace

BAR = 20  # characters
SPAN_S = 30.0  # over which the speed of encoding is meant


@dataclass
class _Line:
    """A stage, or a part of one, that runs."""

    label: str
    since: float
    done: int = 0
    total: int = 0
    unit: str = ""
    facts: list[str] = field(default_factory=list)
    left_s: float | None = None
    of_them: str = ""  # how many of the count are this call's own
    recent: deque[tuple[float, int]] = field(default_factory=deque)  # (clock, done)

    @property
    def has_begun(self) -> bool:
        return bool(self.done or self.total)

    @property
    def count(self) -> str:
        of = f"/{self.total:,}" if self.total else ""
        return f"{self.done:,}{of} {self.unit}".rstrip() if self.has_begun else ""


class Bars:
    """Tells where a run is, on stderr; its methods are those of `adapt.run.Watch`.

    Args:
        quiet: notes only.
        facts: what speeds are measured against; windows per second are shown without them.
        every_s: between two lines off a terminal.
    """

    def __init__(
        self,
        quiet: bool,
        *,
        facts: "Facts | None" = None,
        console: "Console | None" = None,
        every_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        from rich.console import Console

        from adapt.training.watch import Facts, Pace

        self._quiet, self._every_s, self._clock, self._now = quiet, every_s, clock, now
        self._facts = facts or Facts()
        self._console = console or Console(stderr=True)
        # rich also calls a file a terminal when colours are forced by the environment
        self._is_terminal = self._console.file.isatty() and not self._console.is_dumb_terminal
        self._live: Any = None
        self._line: _Line | None = None
        self._pace = Pace()
        self._told_at = -math.inf
        self._has_untold = False

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        if kind is None:
            self._finish()
        elif self._line is not None and not self._is_terminal and self._has_untold:
            self._say(plain(self._line, self._now()))
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def watch(self) -> "Watch":
        """These methods, as a run wants them."""
        from adapt.run import Watch

        return Watch(stage=self.stage, progress=self.progress, tick=self.tick, note=self.note, facts=self.facts)

    def facts(self, facts: "Facts") -> None:
        """What speeds are measured against, once it is known."""
        self._facts = facts

    def stage(self, name: str, skipped: bool) -> None:
        """A stage begins; or it is there already, and is `skipped`."""
        self._finish()
        if skipped:
            self._say(f"{name}: done before")
        else:
            self._begin(name)

    def progress(self, label: str, done: int, total: int, words: str) -> None:
        """So much of the stage is done; `words` is the unit, or a remark where there is one thing to do."""
        line = self._line_of(label)
        line.done, line.total = done, total
        if words == "windows":
            line.unit = words
            line.facts, line.left_s = self._speed(line)
        else:
            line.facts = [words] if words else []
        self._moved(is_last=bool(total) and done >= total)

    def tick(self, tick: "Tick") -> None:
        """A training step is done."""
        self._pace.add(tick)
        line = self._line_of("train")
        line.done, line.total, line.unit = tick.step, tick.steps, "steps"
        line.facts = training_facts(tick, self._pace, self._facts)
        line.left_s = self._pace.left_s(tick)
        line.of_them = f", {tick.step - tick.resumed_from:,} of them" if tick.resumed_from else ""
        self._moved(is_last=tick.step == tick.steps)

    def note(self, words: str) -> None:
        """A remark that stays, also when quiet."""
        if self._quiet:
            sys.stderr.write(f"note: {words}\n")
        else:
            self._say(f"note: {words}")

    def _line_of(self, label: str) -> _Line:
        if self._line is None or self._line.label != label:
            if self._line is not None and self._line.has_begun:
                self._finish()
            self._begin(label)
        return self._line

    def _begin(self, label: str) -> None:
        self._line, self._told_at, self._has_untold = _Line(label, self._clock()), -math.inf, False
        if self._live is None and self._is_terminal and not self._quiet:
            from rich.live import Live

            self._live = Live(self, console=self._console, refresh_per_second=4)
            self._live.start()

    def _finish(self) -> None:
        line, self._line = self._line, None
        if line is None:
            return
        facts = [f for f in line.facts if line.label == "train" or line.unit == ""]
        took = f"{line.count}{line.of_them} in" if line.has_begun and line.unit else "done in"
        self._say(", ".join([f"{line.label}: {took} {duration(self._clock() - line.since)}", *facts]))

    def _moved(self, *, is_last: bool) -> None:
        """Off a terminal: a line, if one is due. The last is told when the stage is finished."""
        self._has_untold = True
        if self._is_terminal or is_last or not self._line.has_begun or self._clock() - self._told_at < self._every_s:
            return
        self._told_at, self._has_untold = self._clock(), False
        self._say(plain(self._line, self._now()))

    def _say(self, words: str) -> None:
        if not self._quiet:
            self._console.print(words, markup=False, highlight=False, soft_wrap=True)

    def _speed(self, line: _Line) -> tuple[list[str], float | None]:
        """Windows per second over the last half minute, and how long the rest takes at that speed."""
        line.recent.append((self._clock(), line.done))
        while line.recent[-1][0] - line.recent[0][0] > SPAN_S and len(line.recent) > 2:
            line.recent.popleft()
        (began, first), (now, last) = line.recent[0], line.recent[-1]
        if now <= began or last <= first:
            return [], None
        rate = (last - first) / (now - began)
        return [f"{figure(rate)} {line.unit}/s"], (line.total - last) / rate if line.total else None

    def __rich_console__(self, console: "Console", options: "ConsoleOptions"):
        from rich.text import Text

        line = self._line
        if line is None:
            return
        done, rest = ("#", "-") if options.ascii_only else ("━", "─")
        head = Text(f"{line.label:<7} ")
        if line.total:
            full = min(BAR, BAR * line.done // line.total)
            head.append(done * full, "green").append(rest * (BAR - full), "bright_black").append(" ")
        words = [line.count, *_times(line, self._now()), *line.facts]
        if line.left_s is None:
            words.append(duration(self._clock() - line.since))
        lines = folded([w for w in words if w], first=head.cell_len, width=options.max_width)
        yield head.append(lines[0])
        yield from map(Text, lines[1:])


def training_facts(tick: "Tick", pace: "Pace", facts: "Facts") -> list[str]:
    """What is worth knowing of a training that runs, each a few words."""
    rate = pace.samples_per_s
    found = [loss_words(tick.loss, tick.parts), held_out_words(tick.val_error, tick.hold)]
    if rate is not None:
        found.append(f"{figure(rate * facts.tokens)} tokens/s" if facts.tokens else f"{figure(rate)} windows/s")
        if facts.flops:
            mfu = facts.mfu(rate)
            found.append("MFU -" if mfu is None else f"MFU {100 * mfu:.0f} %")
    if tick.peak_bytes:
        found.append(f"peak {tick.peak_bytes / 1e9:.1f} GB")
    found.append(f"data wait {100 * pace.wait_share:.0f} %")
    if pace.encoded_per_s:
        found.append(f"encoding {figure(pace.encoded_per_s)} windows/s")
    return [f for f in found if f]


def loss_words(loss: float | None, parts: dict[str, float | None]) -> str:
    """`loss 0.310 (video 0.200, action 0.110)`; empty before the first has arrived."""
    if loss is None or not math.isfinite(loss):
        return ""
    shown = [f"{name} {value:.3f}" for name, value in parts.items() if value]
    return f"loss {loss:.3f}" + (f" ({', '.join(shown)})" if len(shown) > 1 else "")


def held_out_words(error: float | None, hold: float | None) -> str:
    """`held-out 0.0244 vs hold 0.0375`: of the chosen weights, against standing still on the same windows."""
    if hold is None:
        return "" if error is None else f"held-out video loss {error:.4f}"
    return f"held-out {'-' if error is None else format(error, '.4f')} vs hold {hold:.4f}"


def ends_words(left_s: float, now: datetime) -> str:
    """`12.0 min left, ends 18:42`; with the day where that is not today."""
    end = now + timedelta(seconds=left_s)
    days = (end.date() - now.date()).days
    day = "" if not days else f"{end:%a} " if days < 7 else f"{end:%d %b} "
    return f"{duration(left_s)} left, ends {day}{end:%H:%M}"


def figure(value: float) -> str:
    """Three digits, and all of a large number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def plain(line: _Line, now: datetime) -> str:
    """A stage in one line of a log."""
    return ", ".join([f"{line.label}: {line.count}", *line.facts, *_times(line, now)])


def folded(words: list[str], *, first: int, width: int) -> list[str]:
    """Words packed into lines, none broken; the first line has `first` columns less, the others are indented."""
    lines, room = [""], width - first
    for word in words:
        gap = "  " if lines[-1].strip() else ""
        if lines[-1].strip() and len(lines[-1]) + len(gap) + len(word) > room:
            lines.append(" " * 8 + word)
            room = width
        else:
            lines[-1] += gap + word
    return lines


def _times(line: _Line, now: datetime) -> list[str]:
    return [] if line.left_s is None else [ends_words(line.left_s, now)]
