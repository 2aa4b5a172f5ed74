"""The review page: all episodes are on it and play, decisions are shown, its table is one that ingest reads."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import av
import pytest
from arm_logs import take, write_logs
from robots import tree_hash

from schemas.errors import UsageError
from wamdata.doctor.review import write_review
from wamdata.label_table import read_table, write_table
from wamdata.labels import read_labels
from wamdata.source import Source

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PRESSES = """<script>
for (const key of ["k", "v", "d"]) press(key);
episodes[3].from = 1.5; episodes[3].to = 6; episodes[3].newTask = 'Put "it", there'; press("k");
document.body.insertAdjacentHTML("beforeend", "<pre id=out></pre>");
document.getElementById("out").textContent = csv(rows(episodes));
</script></body>"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_logs(tmp_path_factory.mktemp("review") / "logs", [take(n, rows=80) for n in range(4)])


def entries(page: Path) -> list[dict]:
    return json.loads(re.search(r"^const episodes = (.*);$", page.read_text(), re.MULTILINE)[1])


def test_every_episode_is_on_the_page_and_plays(logs: Path, tmp_path: Path) -> None:
    before = tree_hash(logs)
    assert write_review(Source.at(logs), tmp_path / "out") == 4
    shown = entries(tmp_path / "out/index.html")
    assert [e["key"] for e in shown] == [f"episode_{n:06d}" for n in range(4)]
    assert all(e["seconds"] == pytest.approx(4.0, abs=0.01) and e["use"] == "" for e in shown)
    for video in shown[2]["videos"]:
        with av.open(str(tmp_path / "out" / video["file"])) as container:
            assert sum(1 for _ in container.decode(video=0)) == 80
    assert tree_hash(logs) == before
    first = tmp_path / "out" / shown[0]["videos"][0]["file"]
    first.write_bytes(b"kept")
    write_review(Source.at(logs), tmp_path / "out")
    assert first.read_bytes() == b"kept"


def test_pictures_that_browsers_do_not_play_are_encoded(tmp_path: Path) -> None:
    bridge = Path(__file__).parents[2] / "data/bridge_rlds/1.0.0"
    write_review(Source.at(bridge), tmp_path / "out")
    video = entries(tmp_path / "out/index.html")[0]["videos"][0]
    with av.open(str(tmp_path / "out" / video["file"])) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert sum(1 for _ in container.decode(video=0)) == 10


def test_earlier_decisions_are_where_it_starts(logs: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_bytes(
        write_table(
            [
                {"episode": 0, "use": "video", "reason": "slow"},
                {"episode": 1, "end_s": 2, "use": "none"},
                {"episode": 2, "use": "drop"},
                {"episode": 3, "task": "</script><script>"},
            ]
        )
    )
    write_review(Source.at(logs), tmp_path / "out", labels=lambda refs: read_labels([table], refs, refs))
    shown = entries(tmp_path / "out/index.html")
    assert [e["use"] for e in shown] == ["video", "both", "drop", "both"]
    assert shown[0]["reason"] == "slow" and shown[1]["spans"][0]["end_s"] == "2"
    assert (tmp_path / "out/index.html").read_text().count("</script>") == 1


def test_an_episode_that_cannot_be_read_says_why(logs: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(logs, tmp_path / "logs"))
    (broken / "data/chunk-000/episode_000001.parquet").write_bytes(b"PAR1 and nothing else")
    write_review(Source.at(broken), tmp_path / "out")
    problem = entries(tmp_path / "out/index.html")[1]["problem"]
    assert "episode_000001.parquet" in problem and str(tmp_path) not in problem


def test_it_is_not_written_where_it_does_not_belong(logs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lies inside the source"):
        write_review(Source.at(logs), logs / "review")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        write_review(Source.at(logs), tmp_path)


@pytest.mark.skipif(BROWSER is None, reason="no browser to press keys in")
def test_keys_make_a_table_that_ingest_reads(logs: Path, tmp_path: Path) -> None:
    write_review(Source.at(logs), tmp_path / "out")
    page = tmp_path / "out/index.html"
    page.write_text(page.read_text().replace("</body>", PRESSES))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([BROWSER, *options, page.as_uri()], capture_output=True, text=True, timeout=120)
    table = tmp_path / "labels.csv"
    table.write_text(html.unescape(re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)[1]))
    said = [dict(label.values) for label in read_table(table)]
    keys = [f"episode_{n:06d}" for n in range(4)]
    assert said == [
        {"episode": keys[0]},
        {"episode": keys[1], "use": "video"},
        {"episode": keys[2], "use": "drop"},
        {"episode": keys[3], "task": 'Put "it", there'},
        {"episode": keys[3], "end_s": "1.5", "use": "none", "reason": "trimmed"},
    ]  # the end lies behind the episode's, so nothing is trimmed there
