"""The report's two files: whole, self-contained, verdict first, no section without its part."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from adapt.report import Chunk, Example, Figures, contact_sheet, write_report
from adapt.report.page import short
from adapt.report.styles import METHODS, css_colour, css_variables, style_of
from schemas.report import (
    ActionScore,
    ComponentScore,
    ContextScore,
    CurvePoint,
    Forgetting,
    FreeChunk,
    FreeRunning,
    FutureGap,
    LevelLoss,
    Measure,
    Motion,
    Paired,
    Report,
    Sensitivity,
    SplitPart,
    Training,
    VideoScore,
)

VOID = {"meta", "br", "img", "link", "input", "hr"}
HEADINGS = ("How far the predicted actions", "Held-out episode", "Predicted video", "Training", "Data")


def part(name: str, unit: str, labels: tuple[str, ...], errors: dict[str, float]) -> ComponentScore:
    columns = {name: (error,) * len(labels) for name, error in errors.items()}
    return ComponentScore(name=name, unit=unit, labels=labels, error=errors, column_error=columns, amplitude_ratio=0.8)


def action_score(**errors: float) -> ActionScore:
    errors = {"model": 0.02, "stand_still": 0.04, "last_command": 0.03, "shuffled": 0.05} | errors
    return ActionScore(
        windows=12,
        steps=3,
        error=errors,
        step_error={name: (error / 2, error, error * 1.5) for name, error in errors.items()},
        components=(part("arm", "rad", ("elbow", "wrist"), errors), part("hand", "fraction", ("grip",), errors)),
        paired={
            name: Paired(difference=errors["model"] - error, low=-0.03, high=0.01, share_better=0.75)
            for name, error in errors.items()
            if name != "model"
        },
        amplitude_ratio=0.8,
    )


def report(**changes: object) -> Report:
    full = Report(
        verdict="OFFLINE PASS",
        reason="error 0.02 against 0.04 for standing still",
        robot="tiny",
        backbone="nano",
        base="",
        information=("head camera", "present state"),
        chunk_s=0.3,
        action_hz=10,
        split={"train": SplitPart(episodes=("a", "b"), minutes=2.0, windows=50)}
        | {"test": SplitPart(episodes=("c",), minutes=0.5, windows=12)},
        action=action_score(),
        video=VideoScore(
            windows=2,
            frame_s=(0.1, 0.2),
            psnr={"model": 25.0, "copy_last": 20.0, "ceiling": 38.0},
            frame_psnr={"model": (26.0, 24.0), "copy_last": (22.0, 18.0), "ceiling": (38.0, 38.0)},
        ),
        training=Training(
            steps=20,
            chosen_step=10,
            seconds=30,
            trainable_parameters=1000,
            total_parameters=2_000_000,
            windows=50,
            video_windows=0,
            epochs=1.5,
            loss=(CurvePoint(step=1, value=2.0), CurvePoint(step=20, value=0.01)),
            val_error=(CurvePoint(step=10, value=0.02), CurvePoint(step=20, value=0.03)),
        ),
        rejects={"no video": ("d", "e")},
        notes=("action leads state by 0.3 s",),
        provenance={"commit": "abc123"},
    )
    return full.model_copy(update=changes)


def motion(**changes: Measure) -> Motion:
    known = {"amplitude": 0.8, "cosine": 0.6, "jerk": 1.4, "onset_share": 0.5, "onset_delay_s": 0.12}
    measures = {name: Measure.of(value, value - 0.1, value + 0.1) for name, value in known.items()}
    return Motion(**measures | {"gripper_f1": Measure.missing("no gripper")} | changes)


def complete() -> Report:
    """A report with every section."""
    whole = report()
    context = tuple(
        ContextScore(
            past=past,
            windows=4,
            error=whole.action.error,
            step_error={"model": (0.01, 0.02, 0.05), "stand_still": (0.02, 0.04, 0.04)},
        )
        for past in range(3)
    )
    rows = {"free_running": 24.0, "teacher_forced": 25.0, "copy_last": 20.0}
    errors = {"free_running": 0.03, "teacher_forced": 0.02, "stand_still": 0.04}
    chunks = (1, 2)
    curve = (CurvePoint(step=10, value=0.021), CurvePoint(step=20, value=0.031))
    return whole.model_copy(
        update={
            "action": whole.action.model_copy(
                update={"motion": {n: motion() for n in whole.action.error}, "context": context}
            ),
            "video": whole.video.model_copy(
                update={
                    "ssim": {"model": 0.8, "copy_last": 0.7, "ceiling": 0.95},
                    "unmeasured": {"lpips": "no weights"},
                }
            ),
            "free_running": FreeRunning(
                chunks=tuple(FreeChunk(number=n, clips=3, psnr=rows, ssim=rows, error=errors) for n in chunks)
            ),
            "future": FutureGap(windows=12, imagined=0.02, true=0.015, share=Measure.of(0.25, 0.1, 0.4)),
            "language": Sensitivity(
                windows=12, change=Measure.of(3.5, 3, 4), right=Measure.of(0.02), wrong=Measure.of(0.05)
            ),
            "camera": Sensitivity(reason="one camera"),
            "levels": tuple(LevelLoss(level=v, losses={"video": v, "action": 1 - v}) for v in (0.1, 0.5, 0.9)),
            "forgetting": (Forgetting(name="action error", before=0.1, after=0.12),),
            "training": whole.training.model_copy(
                update={"chosen": "average", "raw_val_error": curve, "average_val_error": whole.training.val_error}
                | {"stopped": "no gain in 5 looks", "rung": "bf16 weights", "budget": "2 h"}
            ),
        }
    )


def figures(name: str = "c") -> Figures:
    truth = np.linspace(0, 1, 30).reshape(10, 3)
    chunks = {"model": (Chunk(0, truth[:3] + 0.1), Chunk(8, truth[:3]))}  # the last one runs past the end
    frames = np.zeros((4, 6, 8, 3), np.uint8)
    return Figures(
        examples=(Example(name, np.arange(10) / 10, truth, chunks),),
        videos={"recorded beside predicted": b"\x00\x00\x00\x18ftypmp42"},
        contact_sheet=contact_sheet(frames, frames + 9, columns=2),
    )


class Page(HTMLParser):
    """Body text in order, tags that do not close, and every reference and id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.references += [value or "" for key, value in attrs if key in ("src", "href", "poster", "srcset", "data")]
        self.ids += [value or "" for key, value in attrs if key == "id"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "body" in self.open and data.strip():
            self.text.append(data.strip())


def written(folder: Path, found: Report, shown: Figures) -> tuple[str, Page]:
    html = write_report(folder, found, shown).read_text()
    return html, Page(html)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    return written(tmp_path_factory.mktemp("report"), report(), figures())


def test_the_verdict_is_the_first_thing_read_and_the_reason_the_second(full):
    _, page = full
    assert page.text[0] == "OFFLINE PASS"
    assert page.text[1].lower().startswith("error 0.02 against 0.04 for standing still")


def test_the_page_is_well_formed_with_unique_ids(full):
    _, page = full
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))


def test_the_page_refers_to_nothing_outside_itself(full):
    html, page = full
    assert "http" not in html and "@import" not in html and "<script" not in html
    assert all(r.startswith(("data:", "#")) for r in page.references)
    assert all(u.startswith("#") for u in re.findall(r"url\(([^)]*)\)", html))


def test_every_clip_and_marker_that_is_used_is_defined(full):
    html, page = full
    used = set(re.findall(r"url\(#([^)]*)\)", html)) | {r[1:] for r in page.references if r.startswith("#")}
    assert used <= set(page.ids)


def test_colours_follow_light_and_dark(full):
    html, _ = full
    charts = "".join(re.findall(r"<svg.*?</svg>", html, re.S))
    assert not re.findall(r"#[0-9a-f]{6}\b", charts)
    assert {f"--{name}" for name in css_variables()} >= set(re.findall(r"var\((--[a-z0-9-]+)\)", charts))


def test_what_limits_the_verdict_stands_near_the_top(full):
    _, page = full
    top = " ".join(page.text[:16])
    assert "Offline only: says nothing about a robot in the loop" in top
    assert "no pretrained base: trained from a seed" in top
    assert "head camera; present state" in top


def test_every_section_is_there(full):
    _, page = full
    text = " ".join(page.text)
    assert all(heading in text for heading in HEADINGS)
    assert "elbow" in text and "no video" in text and "action leads state by 0.3 s" in text and "abc123" in text


def test_the_models_row_is_marked_and_in_order_of_error(full):
    html, _ = full
    table = html[html.index("<tbody>") : html.index("</tbody>")]
    rows = re.findall(r"<tr(.*?)</tr>", table, re.S)
    assert ['class="model"' in row for row in rows] == [True, False, False, False]
    assert "standing still" in rows[2]


@pytest.mark.parametrize(("missing", "heading"), [("action", 0), ("video", 2), ("training", 3)])
def test_a_missing_part_leaves_out_its_section(tmp_path, missing, heading):
    _, page = written(tmp_path, report(**{missing: None}), Figures())
    text = " ".join(page.text)
    assert HEADINGS[heading] not in text
    assert HEADINGS[4] in text


def test_no_action_verdict_needs_nothing_but_the_data(tmp_path):
    bare = report(verdict="NO ACTION VERDICT", action=None, video=None, training=None, split={}, rejects={}, notes=())
    _, page = written(tmp_path, bare.model_copy(update={"provenance": {}}), Figures())
    assert page.text[0] == "NO ACTION VERDICT"


def test_numbers_that_are_not_finite_are_said_in_words(tmp_path):
    broken = report(verdict="FAIL", reason="broken", action=action_score(model=float("nan"), shuffled=float("inf")))
    _, page = written(tmp_path, broken, Figures())
    assert "not finite" in " ".join(page.text)
    assert not re.search(r"\bnan\b|\binf\b", " ".join(page.text), re.I)


def test_a_prediction_that_is_not_finite_is_drawn_as_a_gap(tmp_path):
    truth = np.zeros((10, 3))
    example = Example("c", np.arange(10) / 10, truth, {"model": (Chunk(0, np.full((3, 3), np.nan)),)})
    _, page = written(tmp_path, report(), Figures(examples=(example,)))
    assert "Held-out episode" in " ".join(page.text)


def test_names_from_the_data_are_escaped(tmp_path):
    nasty = '<b>"$x_1$" & co'
    score = action_score()
    renamed = score.components[1].model_copy(update={"labels": (nasty,)})
    score = score.model_copy(update={"components": (score.components[0], renamed)})
    html, page = written(tmp_path, report(action=score, notes=(nasty,)), figures(nasty))
    assert "<b>&#34;" not in html and '<b>"' not in html
    assert page.open == []


def test_the_record_beside_the_page_is_the_report(tmp_path):
    write_report(tmp_path, report(), Figures())
    assert Report.read_json(tmp_path / "report.json") == report()


def test_equal_reports_give_equal_bytes(tmp_path):
    one = write_report(tmp_path / "one", report(), figures()).read_bytes()
    assert one == write_report(tmp_path / "two", report(), figures()).read_bytes()


def test_contact_sheet_puts_each_prediction_under_its_frame():
    truth = np.full((3, 2, 2, 3), 10, np.uint8)
    sheet = contact_sheet(truth, truth + 1, columns=2, gap=3)
    assert sheet.shape == (2 * 5 + 3, 2 * 2 + 3, 3)
    assert sheet[:, 0, 0].tolist() == [10, 10, 255, 11, 11, 255, 255, 255, 10, 10, 255, 11, 11]


def test_a_method_looks_the_same_whatever_else_is_shown():
    assert style_of("ridge", ("ridge",)) == style_of("ridge", ("shuffled", "ridge")) == METHODS["ridge"]
    assert css_colour(METHODS["model"].light) == "var(--m-model)"


def test_every_colour_is_one_methods_alone():
    light = [light for light, _ in css_variables().values()]
    assert len(light) == len(set(light))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.02471, "0.0247"), (0.5, "0.500"), (123.4, "123"), (4.51, "4.51"), (0.0, "0"), (1e-6, "1e-06")],
)
def test_numbers_get_three_digits(value, text):
    assert short(value) == text


@pytest.fixture(scope="module")
def complete_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    return written(tmp_path_factory.mktemp("complete"), complete(), Figures())


def test_every_finding_has_its_place(complete_page):
    _, page = complete_page
    text = " ".join(page.text)
    assert page.open == []
    for words in (
        "Likeness of the motion",
        "What the inputs are worth",
        "Free-running: each predicted chunk",
        "What was forgotten",
        "Loss by noise level",
        "none: the start",
        "25 % of the error",
        "+20 %",
    ):
        assert words in text, words


def test_what_was_not_measured_says_why_and_is_not_a_number(complete_page):
    _, page = complete_page
    text = " ".join(page.text)
    assert "Not measured: gripper events: no gripper." in text
    assert "Not measured: cameras: one camera." in text
    assert "Not measured: LPIPS: no weights." in text


def test_a_cell_that_one_method_lacks_is_a_dash_with_its_reason(tmp_path):
    found = complete()
    lacking = found.action.motion | {"shuffled": motion(cosine=Measure.missing("not finite"))}
    action = found.action.model_copy(update={"motion": lacking})
    html, _ = written(tmp_path, found.model_copy(update={"action": action}), Figures())
    assert '<td class="n" title="not finite">–</td>' in html


def test_errors_by_context_are_tinted_by_what_they_are_against_standing_still(complete_page):
    html, _ = complete_page
    heat = html[html.index('class="heat"') :]
    cells = re.findall(r"color-mix\(in srgb, var\(--(better|worse)\) (\d+)%", heat[: heat.index("</table>")])
    assert cells[:4] == [("better", "30"), ("better", "30"), ("worse", "15"), ("better", "30")]


def test_training_says_which_weights_were_kept_and_what_the_others_scored(complete_page):
    _, page = complete_page
    text = " ".join(page.text)
    assert "0.0210 of the weights as trained, 0.0200 of their moving average; the adapter holds their moving" in text
    assert "Stopped: no gain in 5 looks. Computed: bf16 weights. Budget: 2 h." in text


def test_a_complete_report_reads_back(tmp_path):
    write_report(tmp_path, complete(), Figures())
    assert Report.read_json(tmp_path / "report.json") == complete()


def test_a_report_from_before_these_findings_still_reads(tmp_path):
    old = report().as_dict()
    for name in ("free_running", "future", "language", "camera", "levels", "levels_reason", "forgetting"):
        del old[name]
    for name in ("raw_val_error", "average_val_error", "chosen", "stopped", "rung", "budget"):
        del old["training"][name]
    del old["windows_sha256"], old["action"]["motion"], old["action"]["context"]
    (tmp_path / "report.json").write_text(json.dumps(old))
    assert Report.read_json(tmp_path / "report.json") == report()


def test_numbers_that_are_not_finite_are_null_in_the_file_and_come_back(tmp_path):
    errors = {"model": float("nan"), "shuf/fled~": float("-inf"), "other": float("inf")}
    write_report(tmp_path, report(action=action_score(**errors)), Figures())
    text = (tmp_path / "report.json").read_text()

    def refuse(word: str) -> None:
        raise AssertionError(word)

    held = json.loads(text, parse_constant=refuse)
    assert held["action"]["error"]["model"] is None
    assert held["not_finite"]["action/error/model"] == "nan"
    assert held["not_finite"]["action/error/shuf~1fled~0"] == "-inf"
    back = Report.read_json(tmp_path / "report.json")
    assert np.isnan(back.action.error["model"]) and back.action.error["shuf/fled~"] == -np.inf
    assert back.action.components[0].column_error["other"] == (np.inf, np.inf)
    assert np.isnan(back.action.paired["stand_still"].difference)


def test_a_measure_is_a_number_or_a_reason():
    assert Measure.of(float("nan")) == Measure(reason="not finite")
    assert Measure.of(1.0, 0.5, float("inf")) == Measure(value=1.0)
    assert Measure.of(1.0, 0.5, 2.0).reason == ""
