from pathlib import Path

import pytest

from schemas.errors import UsageError
from schemas.mix import Mix
from schemas.yaml_io import parse, read_yaml, write_yaml

PLAY = {"name": "play", "shards": "shards/arm", "share": 0.75, "losses": ["video", "action"], "role": "play"}
FILM = {"name": "film", "shards": "shards/hands", "share": 0.25, "losses": ["video"], "role": "video"}
OLD = {
    "name": "old",
    "shards": "shards/old",
    "share": 1,
    "losses": ["action", "video"],
    "role": "replay",
    "robot": "yam",
}


def mix(*parts: dict) -> Mix:
    return parse(Mix, {"schema": "wamkit/mix@1", "parts": list(parts)}, "mix.yaml")


def test_a_mixture_survives_the_disk(tmp_path: Path) -> None:
    write_yaml(tmp_path / "mix.yaml", mix(PLAY, FILM, OLD))
    assert read_yaml(tmp_path / "mix.yaml", Mix) == mix(PLAY, FILM, OLD)


def test_shares_that_sum_to_one_are_taken_as_they_are() -> None:
    assert mix(PLAY, FILM).shares == {"play": 0.75, "film": 0.25} and mix(PLAY, FILM).note == ""


def test_other_shares_are_normalised_and_said_to_be() -> None:
    found = mix(PLAY, FILM, OLD)
    assert found.shares == pytest.approx({"play": 0.375, "film": 0.125, "old": 0.5})
    assert found.note == "shares sum to 2: taken as play 0.375, film 0.125, old 0.5"


def test_thirds_need_no_note() -> None:
    thirds = [PLAY | {"name": name, "share": 0.333} for name in ("a", "b", "c")]
    assert mix(*thirds).note == "" and sum(mix(*thirds).shares.values()) == pytest.approx(1)


def test_films_alone_need_no_robot() -> None:
    assert len(mix(FILM, FILM | {"name": "more"}).parts) == 2


def test_a_replay_part_may_give_up_its_actions() -> None:
    assert mix(PLAY, OLD | {"losses": ["video"]}).parts[1].losses == ("video",)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "parts: Tuple should have at least 1 item"),
        ([OLD], "no part has role play: name the robot's own part"),
        ([OLD, FILM], "no part has role play"),
        ([PLAY, FILM | {"name": "play"}], "part 'play' is given twice"),
        ([PLAY, PLAY | {"name": "b", "robot": "yam"}], r"name 2 robots \(as ingested, yam\), wanted one"),
        ([PLAY | {"share": 0}], "share"),
        ([PLAY | {"share": float("inf")}], "share"),
        ([PLAY | {"name": "My part"}], "holds only a-z, 0-9, _ and -"),
        ([PLAY | {"losses": ["action"]}], r"losses \['action'\], wanted \[video, action\] or \[video\]"),
        ([PLAY | {"losses": ["video", "video"]}], r"wanted \[video, action\] or \[video\]"),
        ([PLAY | {"losses": ["video"]}], "for video alone give role video"),
        ([PLAY, FILM | {"losses": ["video", "action"]}], "for actions give role play or replay"),
        ([PLAY | {"role": "main"}], "role"),
        ([{k: v for k, v in PLAY.items() if k != "share"}], "share: Field required"),
        ([PLAY | {"weight": 1}], r"unknown field 'parts.0.weight'"),
    ],
)
def test_a_mixture_that_cannot_be_is_one_line(parts: list[dict], words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        mix(*parts)
    assert "\n" not in str(error.value) and "mix.yaml" in str(error.value)
