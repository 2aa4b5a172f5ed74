"""Another policy's predictions: read from three formats, placed on the judged windows, refused by the first bad row."""

import json
from pathlib import Path

import numpy as np
import pytest

from adapt.evaluate.predictions import read_predictions
from adapt.scoring.baselines import ActionWindows
from schemas.errors import DataError, UsageError

HZ = 10.0
KEYS = ["clip_a", "clip_a", "clip_b", "clip_c"]  # b and c are two clips of one episode


def windows(valid: np.ndarray | None = None) -> ActionWindows:
    """Four windows of two steps and three columns."""
    return ActionWindows(
        state=np.zeros((4, 1)),
        history=np.zeros((4, 1, 1)),
        last_action=np.zeros((4, 3)),
        action=np.zeros((4, 2, 3)),
        valid=np.ones((4, 2), bool) if valid is None else valid,
        episode=np.array(["one", "one", "two", "two"]),
        start=np.array([0, 2, 0, 0]),
    )


def table() -> list[dict]:
    """All steps, an action telling its window and step."""
    names = [("one", 0), ("one", 2), ("clip_b", 0), ("clip_c", 0)]
    return [
        {"episode": episode, "row": row, "step": step, "action": [float(n), float(step), 0.5]}
        for n, (episode, row) in enumerate(names)
        for step in range(2)
    ]


def write(path: Path, rows: list[dict]) -> Path:
    columns = {name: [r[name] for r in rows] for name in rows[0]}
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    elif path.suffix == ".npz":
        np.savez(path, **{name: np.array(values) for name, values in columns.items()})
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table(columns), path)
    return path


def placed(path: Path, rows: list[dict], judged: ActionWindows | None = None) -> np.ndarray:
    return read_predictions(write(path, rows)).at(KEYS, judged or windows(), action_hz=HZ)


@pytest.mark.parametrize("suffix", ["jsonl", "npz", "parquet"])
def test_every_format_gives_the_same_commands_in_any_order_of_rows(tmp_path, suffix):
    found = placed(tmp_path / f"other.{suffix}", table()[::-1])
    assert found.shape == (4, 2, 3)
    assert found[:, :, 0].tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    assert found[:, :, 1].tolist() == [[0, 1]] * 4
    assert read_predictions(tmp_path / f"other.{suffix}").name == "policy other"


def test_the_documented_example_is_of_the_documented_format(tmp_path):
    import adapt.evaluate.predictions

    lines = [x.strip() for x in adapt.evaluate.predictions.__doc__.splitlines() if x.strip().startswith("{")]
    (tmp_path / "doc.jsonl").write_text("\n".join(lines))
    assert read_predictions(tmp_path / "doc.jsonl").step == [0, 1]


def test_seconds_stand_for_rows(tmp_path):
    rows = [{"t_s": r["row"] / HZ + 0.01, **{k: v for k, v in r.items() if k != "row"}} for r in table()]
    assert np.array_equal(placed(tmp_path / "t.jsonl", rows), placed(tmp_path / "r.jsonl", table()))
    rows[3]["t_s"] = 0.25
    with pytest.raises(DataError, match=r"line 4: t_s 0.25 lies between rows at 10 Hz"):
        placed(tmp_path / "t.jsonl", rows)


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (2, {"row": 1}, r"line 3: no judged window of episode 'one' at row 1 \(they begin at rows 0, 2, ...\)"),
        (4, {"episode": "two"}, r"line 5: no judged window of episode 'two' at row 0 \(it is not judged\)"),
        (1, {"step": 2}, r"line 2: step 2, wanted 0 to 1"),
        (1, {"step": 0}, r"line 2: step 0 of this chunk a second time"),
        (5, {"action": [1.0]}, r"line 6: action of 1 numbers, wanted 3"),
        (5, {"action": [1.0, float("nan"), 0.0]}, r"line 6: an action that is not finite"),
    ],
)
def test_the_first_row_that_does_not_match_is_named(tmp_path, number, change, message):
    rows = table()
    rows[number] |= change
    with pytest.raises(DataError, match=message):
        placed(tmp_path / "other.jsonl", rows)


def test_a_missing_step_is_named_unless_it_does_not_count(tmp_path):
    rows = [r for r in table() if (r["episode"], r["step"]) != ("clip_b", 1)]
    with pytest.raises(DataError, match=r"holds no step 1 of episode 'two' at row 0. Predict every judged window"):
        placed(tmp_path / "other.npz", rows)
    valid = np.ones((4, 2), bool)
    valid[2, 1] = False
    assert placed(tmp_path / "other.npz", rows, windows(valid))[2, 1].tolist() == [0, 0, 0]


def test_rows_of_tables_count_from_zero(tmp_path):
    rows = table()
    rows[3] |= {"row": 1}
    with pytest.raises(DataError, match="row 3: no judged window"):
        placed(tmp_path / "other.parquet", rows)


def test_what_is_no_table_of_predictions_is_refused_in_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"Give a file that ends in .jsonl, .parquet, .npz"):
        read_predictions(tmp_path / "other.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(tmp_path / "absent.npz")
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="is no npz file"):
        read_predictions(tmp_path / "broken.npz")
    (tmp_path / "broken.jsonl").write_text('{"episode": "one"}\nnonsense')
    with pytest.raises(DataError, match="line 2: is no JSON"):
        read_predictions(tmp_path / "broken.jsonl")
    with pytest.raises(DataError, match="has no column 'action'"):
        read_predictions(write(tmp_path / "less.npz", [{"episode": "a", "row": 0, "step": 0}]))
    with pytest.raises(DataError, match="has no column 'row or t_s'"):
        read_predictions(write(tmp_path / "less.npz", [{"episode": "a", "step": 0, "action": [0.0]}]))
    np.savez(tmp_path / "pickled.npz", episode=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="pickled"):
        read_predictions(tmp_path / "pickled.npz")
