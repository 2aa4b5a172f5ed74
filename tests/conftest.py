"""What several test files share: made once per session, because lerobot takes 10 s to import."""

from pathlib import Path

import pytest
import torch
from synthetic import write_lerobot_v3

torch.set_num_threads(1)  # barriers of two threads cost more than the work wherever another process runs

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def lerobot_v3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LeRobot v3.0 set of a made-up robot, written by lerobot. Read-only by agreement: copy it to change it."""
    return write_lerobot_v3(tmp_path_factory.mktemp("lerobot") / "synthetic_arm")


@pytest.fixture(scope="session")
def g1() -> Path:
    """Real LeRobot v2.1: a Unitree G1 with Inspire hands."""
    return DATA / "g1_inspire_v21"


@pytest.fixture(scope="session")
def droid_video() -> Path:
    """Real video without actions: three DROID cameras."""
    return DATA / "droid_video"


@pytest.fixture(scope="session")
def g1_shards(g1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The G1 set as shards. Read-only by agreement."""
    from schemas.recipe import IngestRecipe
    from wamdata.ingest import ingest

    out = tmp_path_factory.mktemp("shards") / "g1"
    ingest(IngestRecipe(sources=(str(g1),), robot="g1_inspire"), out, executor="local")
    return out


@pytest.fixture(scope="session")
def droid_shards(droid_video: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DROID videos as action-free shards. Read-only by agreement."""
    from schemas.recipe import IngestRecipe
    from wamdata.ingest import ingest

    out = tmp_path_factory.mktemp("shards") / "droid"
    recipe = IngestRecipe(sources=(str(droid_video),), robot="video_only", task="work at a table")
    ingest(recipe, out, executor="local")
    return out
