"""`wam base` on real files, without a network."""

import json
from pathlib import Path

import pytest
from commands import Ran, wam
from dreamzero_checkpoints import write_released

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = "umt5-xxl-tokenizer"


def base(*words: object, home: Path) -> Ran:
    return wam("base", *words, env={"WAM_BASES": str(home), "HF_HUB_OFFLINE": "1"})


def refused(*words: object, home: Path) -> str:
    ran = base(*words, home=home)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1 and ran.stderr.startswith("wam: "), ran.stderr
    return ran.stderr


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    (folder / "spiece.model").write_bytes(b"sp")
    (folder / "pytorch_model.bin").write_bytes(b"weights that nobody needs")
    return folder


def test_list_says_what_there_is_and_what_is_here(tokenizer: Path, tmp_path: Path) -> None:
    home = tmp_path / "bases"
    assert base("pull", TOKENIZER, "--from", tokenizer, home=home).returncode == 0
    (home / "wan2.2-ti2v-5b").mkdir()
    (home / "dreamzero-agibot.pulling").mkdir()
    found = {b["name"]: b for b in json.loads(base("list", "--json", home=home).stdout)["bases"]}
    assert {name: b["here"] for name, b in found.items()} == {
        "dreamzero-agibot": "begun",
        "dreamzero-droid": "no",
        "wan2.1-i2v-14b-480p": "no",
        "wan2.2-ti2v-5b": "NOT complete",
        TOKENIZER: "complete",
    }
    shown = base("list", home=home).stdout
    assert "CC-BY-NC-4.0" in shown and "45-49 GB" in shown and "not recorded" in shown


def test_pull_and_verify_a_folder(tokenizer: Path, tmp_path: Path) -> None:
    home = tmp_path / "bases"
    pulled = json.loads(base("pull", TOKENIZER, "--from", tokenizer, "--json", home=home).stdout)
    assert pulled["record"]["files"].keys() == {"tokenizer.json", "spiece.model"} and pulled["hashed"] == 2
    (home / TOKENIZER / "spiece.model").unlink()
    (home / TOKENIZER / "spiece.model").write_bytes(b"xx")
    assert base("verify", TOKENIZER, "--quick", home=home).returncode == 0
    assert "spiece.model: sha256 is" in refused("verify", TOKENIZER, home=home)


def test_verify_records_a_folder_and_show_tells_of_it(tmp_path: Path) -> None:
    folder = write_released(tmp_path / "mine")
    ran = base("verify", folder, home=tmp_path)
    assert ran.returncode == 0 and "DreamZero checkpoint tiny, complete; 5 files hashed" in ran.stdout
    assert (folder / "wamkit_base.json").exists()
    facts = json.loads(base("show", folder, "--json", home=tmp_path).stdout)
    record = json.loads((folder / "wamkit_base.json").read_text())
    assert facts["base_sha256"] == record["base_sha256"] and facts["hashes"] == "5 files on record"


def test_show_says_what_a_licence_means_before_anything_is_pulled(tmp_path: Path) -> None:
    shown = base("show", "dreamzero-droid", home=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "inherits" in shown.stdout and "chunk_s 1.6" in shown.stdout and "none known" in shown.stdout


def test_without_a_network_one_line_says_what_to_do(tmp_path: Path) -> None:
    told = refused("pull", "dreamzero-agibot", home=tmp_path / "bases")
    assert "cannot be reached" in told and "--from DIR" in told
