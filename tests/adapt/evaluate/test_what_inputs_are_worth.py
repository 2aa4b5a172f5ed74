"""Language and cameras, measured on logs in which they alone say what to do: a whole run of nano."""

from pathlib import Path

import pytest
from synthetic import write_lerobot_v3

from adapt.clips import Clips
from adapt.run import adapt
from schemas.mix import MixPart
from schemas.recipe import AdaptRecipe, IngestRecipe
from wamdata.ingest import ingest

ARM = Path(__file__).resolve().parents[2] / "data/synthetic_arm.yaml"


@pytest.mark.slow  # three minutes of training
def test_a_model_that_listens_and_looks_is_told_so(tmp_path: Path) -> None:
    logs = write_lerobot_v3(tmp_path / "logs", episodes=16, is_telling=True)
    whole = {"sources": (str(logs),), "robot": str(ARM), "split": {"by": "order"}}
    ingest(IngestRecipe(**whole), tmp_path / "shards", executor="local")
    part = MixPart(name="play", shards=str(tmp_path / "shards"), share=1.0, losses=("video", "action"), role="play")
    recipe = AdaptRecipe(parts=(part,), steps=600, eval_every=200, window_stride_s=0.4, samples=2)
    report = adapt(tmp_path / "run", recipe, {"play": Clips.open(tmp_path / "shards")}, command="").report
    assert report.verdict == "OFFLINE PASS", report.reason
    for found in (report.language, report.camera):
        assert found.change.low > 1.5, found  # times what another noise seed changes
        assert found.wrong.low > 1.5 * found.right.high, found
