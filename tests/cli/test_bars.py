"""What `wam adapt` says while it works: in a terminal, in a batch system's log, quietly."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import pytest
import ticks
from rich.console import Console

from adapt.training.loop import Tick
from adapt.training.watch import Facts
from cli import console
from cli.bars import Bars, ends_words, folded, training_facts

NOON = datetime(2026, 11, 23, 12, 0)
FIRST = replace(ticks.FIRST, steps=1000, loss=0.31, parts={"video": 0.2, "action": 0.11}, wait_share=0.04)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass
class Clock:
    """Seconds that pass when they are told to."""

    at: float = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Iterator[Clock]:
    yield Clock()


def bars(file: io.StringIO, clock: Clock, *, quiet: bool = False, width: int = 100, **known) -> Bars:
    there = Console(file=file, width=width, force_terminal=True)
    return Bars(quiet, **known, console=there, clock=clock, now=lambda: NOON)


def train(shown: Bars, clock: Clock, ticks: list[Tick]) -> None:
    for tick in ticks:
        clock.at += tick.seconds
        shown.tick(tick)


def steps(first: int, last: int, **changes) -> list[Tick]:
    return [replace(FIRST, step=step, **changes) for step in range(first, last + 1)]


def test_a_log_gets_whole_lines_now_and_then_even_if_colours_are_forced(clock: Clock) -> None:
    file = io.StringIO()
    with bars(file, clock) as shown:
        shown.stage("train", False)
        train(shown, clock, steps(1, 1000))
    text = file.getvalue()
    assert "\r" not in text and "\x1b" not in text
    lines = text.splitlines()
    assert 2000 / 30 - 5 < len(lines) <= 2000 / 30 + 2, "one line every 30 s of 2,000 s"
    assert lines[0].startswith("train: 1/1,000 steps, loss 0.310 (video 0.200, action 0.110)")
    assert lines[1] == (
        "train: 16/1,000 steps, loss 0.310 (video 0.200, action 0.110), held-out - vs hold 0.0375, "
        "4.00 windows/s, data wait 4 %, 32.8 min left, ends 12:32"
    )
    assert lines[-1].startswith("train: 1,000/1,000 steps in 33.3 min, loss 0.310")


def test_stages_that_were_done_before_and_those_that_are_done_now_are_told_once(clock: Clock) -> None:
    file = io.StringIO()
    with bars(file, clock) as shown:
        shown.stage("latents", False)
        for done in range(0, 41, 10):
            clock.at += 5
            shown.progress("encode", done, 40, "windows")
        shown.progress("encode more", 0, 0, "windows")
        shown.stage("train", True)
        shown.stage("eval", False)
        shown.progress("judge", 0, 1, "58 held-out windows")
        shown.progress("judge", 1, 1, "OFFLINE PASS")
        shown.stage("adapter", False)
        clock.at += 3
    assert file.getvalue().splitlines() == [
        "encode: 0/40 windows",
        "encode: 40/40 windows in 20 s",
        "encode more: done in 0 s",
        "train: done before",
        "judge: 0/1, 58 held-out windows",
        "judge: done in 0 s, OFFLINE PASS",
        "adapter: done in 3 s",
    ]


def test_encoding_shows_the_speed_of_the_last_half_minute(clock: Clock) -> None:
    file = io.StringIO()
    with bars(file, clock) as shown:
        for done in range(0, 1000, 10):
            clock.at += 1 if done < 500 else 5
            shown.progress("encode", done, 2000, "windows")
    lines = file.getvalue().splitlines()
    assert "encode: 300/2,000 windows, 10.0 windows/s, 2.8 min left, ends 12:02" in lines
    assert lines[-2].startswith("encode: 940/2,000 windows, 2.00 windows/s, 8.8 min left")


def test_a_run_that_was_cut_short_says_how_far_it_came(clock: Clock) -> None:
    file = io.StringIO()
    with pytest.raises(KeyboardInterrupt), bars(file, clock) as shown:
        train(shown, clock, steps(1, 7))
        raise KeyboardInterrupt
    lines = file.getvalue().splitlines()
    assert len(lines) == 2 and lines[-1].startswith("train: 7/1,000 steps, loss")


def test_a_resumed_run_shows_the_speed_of_its_own_steps_and_counts_them(clock: Clock) -> None:
    file = io.StringIO()
    with bars(file, clock) as shown:
        train(shown, clock, steps(901, 1000, resumed_from=900, val_error=0.0244))
    lines = file.getvalue().splitlines()
    assert all("4.00 windows/s" in line for line in lines) and "left" not in lines[0]
    assert lines[-1].startswith("train: 1,000/1,000 steps, 100 of them in 3.3 min")


def test_training_says_what_the_device_is_worth() -> None:
    from adapt.training.watch import Pace

    pace = Pace()
    for tick in steps(1, 100, peak_bytes=81_200_000_000, encoded=2, val_error=0.0244):
        pace.add(tick)
    tick = replace(FIRST, val_error=0.0244, peak_bytes=81_200_000_000)
    assert training_facts(tick, pace, Facts(15940, 399e12, 989 * 8)) == [
        "loss 0.310 (video 0.200, action 0.110)",
        "held-out 0.0244 vs hold 0.0375",
        "63,760 tokens/s",
        "MFU 20 %",
        "peak 81.2 GB",
        "data wait 4 %",
        "encoding 1.00 windows/s",
    ]
    assert "MFU -" in training_facts(tick, pace, Facts(15940, 399e12))
    assert not [f for f in training_facts(tick, pace, Facts()) if "MFU" in f]
    video_only = replace(FIRST, hold=None, val_error=0.123, parts={"video": 0.31, "action": 0.0}, loss=float("nan"))
    assert training_facts(video_only, pace, Facts())[0] == "held-out video loss 0.1230"
    assert training_facts(replace(video_only, loss=0.31), pace, Facts())[0] == "loss 0.310"


@pytest.mark.parametrize(
    ("left", "words"),
    [(30, "30 s left, ends 12:00"), (6 * 3600, "6.0 h left, ends 18:00"), (86400, "24.0 h left, ends Tue 12:00")],
)
def test_the_end_has_a_day_where_it_is_not_today(left: float, words: str) -> None:
    assert ends_words(left, NOON) == words
    assert ends_words(10 * 86400, NOON).endswith("ends 03 Dec 12:00")


def test_a_terminal_shows_a_bar_with_notes_and_finished_stages_above_it(clock: Clock) -> None:
    file = Terminal()
    with bars(file, clock, width=90, facts=Facts(100)) as shown:
        shown.stage("latents", True)
        shown.stage("train", False)
        train(shown, clock, steps(1, 500))
        shown.note("out of memory with bf16; going on with fp8")
        rendered = Console(file=io.StringIO(), width=90, legacy_windows=False)
        rendered.print(shown)
        shown.stage("eval", False)
    drawn = rendered.file.getvalue().splitlines()
    assert drawn[0] == "train   ━━━━━━━━━━────────── 500/1,000 steps  16.7 min left, ends 12:16"
    assert drawn[1:] == [
        "        loss 0.310 (video 0.200, action 0.110)  held-out - vs hold 0.0375  400 tokens/s",
        "        data wait 4 %",
    ]
    told = [line for line in file.getvalue().splitlines() if line.startswith(("latents", "note", "train: "))]
    assert "latents: done before" in file.getvalue()
    assert any("note: out of memory with bf16; going on with fp8" in line for line in file.getvalue().splitlines())
    assert any("train: 500/1,000 steps in 16.7 min" in line for line in file.getvalue().splitlines()), told


def test_lines_fit_any_terminal_and_lose_no_words() -> None:
    words = ["1/2 steps", "loss 0.310", "held-out - vs hold 0.0375", "data wait 4 %"]
    for width in (40, 60, 80, 200):
        lines = folded(words, first=28, width=width)
        assert [w for line in lines for w in line.strip().split("  ")] == words
        assert all(
            len(line) + (28 if at == 0 else 0) <= max(width, 28 + len(words[0])) for at, line in enumerate(lines)
        )


def test_quiet_leaves_notes_alone(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    file = io.StringIO()
    with bars(file, clock, quiet=True) as shown:
        shown.stage("latents", True)
        shown.note("step-000300 is damaged and was set aside")
        train(shown, clock, steps(1, 40))
    assert file.getvalue() == "" and capsys.readouterr().err == "note: step-000300 is damaged and was set aside\n"


def test_a_run_can_be_given_these_methods(clock: Clock) -> None:
    file = io.StringIO()
    with bars(file, clock) as shown:
        watch = shown.watch
        watch.stage("latents", True)
        watch.save()
        watch.note("hello")
    assert file.getvalue().splitlines() == ["latents: done before", "note: hello"]


def test_other_commands_log_whole_lines_too(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("cli.console.time.monotonic", clock)
    with console.progress("ingest") as show:
        for done in range(1, 101):
            clock.at += 1
            show(done, 100, "episodes")
    with console.progress("ingest", quiet=True) as show:
        show(1, 1, "")
    told = capsys.readouterr().err.splitlines()
    assert told == [f"ingest: {n} of 100 episodes" for n in (30, 60, 90, 100)]
