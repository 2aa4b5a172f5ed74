"""`wam export --to` of DreamZero checkpoints from anywhere: a LoRA in three layouts, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from commands import refused
from commands import wam as wam_whole
from dreamzero_checkpoints import TINY, some_inputs, some_lora, write_both, write_released, write_wan
from typer.testing import CliRunner, Result

from adapt.backbones.dreamzero.channels import slots_as_dict
from adapt.backbones.dreamzero.checkpoint import open_checkpoint
from adapt.backbones.dreamzero.export import export_native, export_peft
from adapt.backbones.dreamzero.legacy import IMAGE_FILE
from adapt.backbones.dreamzero.load import checkpoint_fingerprint, compose, load_dit
from adapt.backbones.dreamzero.lora_weights import read_lora
from adapt.backbones.dreamzero.served import MEASURES
from adapt.backbones.dreamzero.slots import BASES, slot_map
from adapt.handover.adapter import write_folder
from cli.main import app
from schemas.embodiment import Embodiment, load_embodiment
from schemas.errors import DataError, UsageError, WamError
from schemas.recipe import TimeBase
from schemas.stats import Moments, Statistics

ROOT = Path(__file__).resolve().parents[2]
LORA = some_lora(rank=8, scale=2.0)


def wam(*words: object) -> Result:
    """The command in this process; its error is raised."""
    ran = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(ran.exception, WamError):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return ran


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_released(tmp_path_factory.mktemp("checkpoints") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    """A peft folder that records its base."""
    sha256 = checkpoint_fingerprint(open_checkpoint(base))
    return export_peft(base.parent / "adapter", LORA, base_name="base", base_sha256=sha256)


@pytest.fixture(scope="module")
def unsure(base: Path) -> Path:
    """A LoRA-only save that records no base, as the reference's."""
    out = base.parent / "unsure"
    return export_native(out, LORA, TINY, base_name="base", base_sha256="0" * 64, base_verified=False)


def outputs(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        got = model(**some_inputs())
    return torch.cat([got.video.flatten(), got.action.flatten()])


def loaded(path: Path, base: Path) -> torch.Tensor:
    checkpoint = open_checkpoint(path)
    if not checkpoint.is_lora:
        return outputs(load_dit(checkpoint, dtype=torch.float32))
    return outputs(compose(open_checkpoint(base), checkpoint, base_named_by_user=True, dtype=torch.float32)[0])


def moments(width: int, start: float) -> Moments:
    values = {m: tuple(start + 10 * k + c for c in range(width)) for k, m in enumerate(MEASURES)}
    return Moments(count=5, **values)


def statistics_of(robot: Embodiment) -> Statistics:
    return Statistics(
        embodiment_sha256=robot.digest(),
        action_hz=15.0,
        state=moments(robot.state_width, 1000),
        action=moments(robot.action_width, 2000),
        relative=moments(robot.action_width, 3000),
        relative_step=(),
    )


@pytest.fixture
def statistics(tmp_path: Path) -> Path:
    statistics_of(load_embodiment("droid")).write_json(tmp_path / "statistics.json")
    return tmp_path / "statistics.json"


def test_the_three_layouts_give_the_outputs_of_base_plus_adapter(base: Path, adapter: Path, tmp_path: Path) -> None:
    want = loaded(adapter, base)
    assert (want - outputs(load_dit(open_checkpoint(base), dtype=torch.float32))).abs().max() > 0.05
    for layout in ("peft", "dreamzero-lora", "dreamzero"):
        out = tmp_path / layout
        said = json.loads(wam("export", adapter, "--to", layout, "--base", base, "-o", out, "--json", "-q").stdout)
        assert (said["kind"], said["out"]) == (layout, str(out))
        assert said["base_check"] == f"base verified: sha256 {checkpoint_fingerprint(open_checkpoint(base))}"
        assert torch.equal(loaded(out, base), want)
    again = tmp_path / "again"
    wam("export", tmp_path / "dreamzero-lora", "--to", "dreamzero", "--base", base, "-o", again, "--shard-gb", "0.002")
    assert torch.equal(loaded(again, base), want) and len(open_checkpoint(again).files) == 4


def test_an_adapter_that_records_no_base_is_warned_of_and_stays_unverified(
    base: Path, unsure: Path, tmp_path: Path
) -> None:
    for layout in ("peft", "dreamzero-lora", "dreamzero"):
        ran = wam("export", unsure, "--to", layout, "--base", base, "--out", tmp_path / layout)
        assert ran.stderr.splitlines()[0].startswith("warning: base not verifiable: the adapter records none; the user")
        assert "base not verifiable" in ran.stdout
        assert json.loads((tmp_path / layout / "wamkit.json").read_text())["base_verified"] is False
    assert read_lora(open_checkpoint(tmp_path / "peft")).base_sha256 is None


def test_a_full_export_tells_its_progress_in_bytes(base: Path, adapter: Path, tmp_path: Path) -> None:
    ran = wam("export", adapter, "--to", "dreamzero", "--base", base, "--out", tmp_path / "out")
    assert "writing: 12 of 12 MB" in ran.stderr
    assert ran.stdout.startswith(f"{tmp_path / 'out'}: DreamZero checkpoint tiny, complete, 394 tensors, 12.4 MB")
    assert "no --robot, so no experiment_cfg: the reference's servers will need it" in ran.stdout


def test_a_served_robot_comes_from_its_file_and_its_statistics(
    base: Path, adapter: Path, statistics: Path, tmp_path: Path
) -> None:
    words = ("--robot", "droid", "--statistics", statistics, "--resolution", "320x180", "--tag", "oxe_droid")
    for layout in ("dreamzero", "dreamzero-lora"):
        out = tmp_path / layout
        wam("export", adapter, "--to", layout, "--base", base, "--out", out, *words, "--wan", "/models/wan")
        conf = yaml.safe_load((out / "experiment_cfg" / "conf.yaml").read_text())
        keys = conf["modality_configs"]["oxe_droid"]
        assert keys["video"]["modality_keys"] == ["video.exterior_left", "video.exterior_right", "video.wrist"]
        assert keys["action"]["modality_keys"] == ["action.arm", "action.gripper"]
        assert (conf["relative_action_keys"], conf["save_lora_only"]) == (["arm"], layout == "dreamzero-lora")
        told = json.loads((out / "experiment_cfg" / "metadata.json").read_text())["oxe_droid"]
        assert told["modalities"]["video"]["wrist"] == {"resolution": [320, 180], "channels": 3, "fps": 15.0}
        assert told["statistics"]["state"]["arm"]["mean"] == [1000.0 + c for c in range(7)]
        assert told["statistics"]["state"]["gripper"]["q99"] == [1057.0]
        assert told["statistics"]["action"]["arm"]["mean"] == [3000.0 + c for c in range(7)]  # relative: its own
        assert told["statistics"]["action"]["gripper"]["q01"] == [2047.0]
        head = json.loads((out / "config.json").read_text())["action_head_cfg"]["config"]
        assert head["diffusion_model_cfg"]["diffusion_model_pretrained_path"] == "/models/wan"


def test_what_cannot_be_served_is_refused_before_anything_is_written(
    base: Path, adapter: Path, statistics: Path, tmp_path: Path
) -> None:
    command = ("export", adapter, "--base", base, "--out", tmp_path / "out", "--to")
    size, own = ("--resolution", "320x180"), ("--statistics", statistics)
    cases = (
        (("dreamzero", "--robot", "droid", *own), "missing for this export: --resolution WxH of the frames"),
        (("dreamzero", "--robot", "droid", *own, "--tag", "yam", "--resolution", "big"), "--resolution: big"),
        (
            ("dreamzero", "--robot", "droid", *size),
            "--statistics FILE.json of --robot droid; --tag or --embodiment-id: the reference",
        ),
        (("dreamzero", "--robot", "droid", *own, *size), "the reference has no prompt for 'droid', but for oxe_droid"),
        (("peft", "--robot", "droid", *own, *size), "peft's folder has no place for it"),
        (("half",), "--to half: not known. Give one of: peft, dreamzero, dreamzero-lora, merged"),
        (("merged",), "Give --to dreamzero, which `wam adapt --base` takes"),
    )
    for words, message in cases:
        with pytest.raises(UsageError) as raised:
            wam(*command, *words)
        assert message in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(DataError, match="statistics are not of g1_inspire"):
        wam(*command, "dreamzero", "--robot", "g1_inspire", *own, *size, "--tag", "yam")
    assert [path.name for path in tmp_path.iterdir()] == ["statistics.json"]


def test_a_component_relative_to_another_name_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    text = (ROOT / "schemas" / "embodiments" / "droid.yaml").read_text()
    text = text.replace("{name: arm, like: state.arm", "{name: elbow, like: state.arm")
    (tmp_path / "mine.yaml").write_text(text)
    statistics_of(load_embodiment(str(tmp_path / "mine.yaml"))).write_json(tmp_path / "s.json")
    words = ("--robot", tmp_path / "mine.yaml", "--statistics", tmp_path / "s.json", "--resolution", "320x180")
    with pytest.raises(UsageError, match=r"action\.elbow is relative to state\.arm"):
        wam(
            "export",
            adapter,
            "--to",
            "dreamzero",
            "--base",
            base,
            "--out",
            tmp_path / "o",
            *words,
            "--tag",
            "oxe_droid",
        )


def test_a_wrong_base_or_none_is_one_line_and_exit_code_2(base: Path, adapter: Path, tmp_path: Path) -> None:
    other = write_released(tmp_path / "other", dtype=torch.bfloat16)
    ran = wam_whole("export", adapter, "--to", "dreamzero", "--base", other, "--out", tmp_path / "out")
    assert ran.returncode == 2 and ran.stdout == ""
    assert ran.stderr.startswith(f"wam: {other}: is not the base of {adapter}") and ran.stderr.count("\n") == 1
    for words, message in (
        (("--to", "dreamzero"), "missing for this export: --base DIR, a LoRA's own base"),
        (("--to", "peft", "--base", adapter), "holds a LoRA \\(peft\\), which is no base"),
        ((), "a checkpoint. Say how to write it with --to"),
    ):
        with pytest.raises(UsageError, match=message):
            wam("export", adapter, "--out", tmp_path / "out", *words)
    with pytest.raises(UsageError, match="is a base itself"):
        wam("export", base, "--to", "peft", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_is_written_again_and_its_unmerged_lora_merged(base: Path, tmp_path: Path) -> None:
    both = write_both(tmp_path / "both", LORA)
    wam("export", both, "--to", "dreamzero", "--out", tmp_path / "dreamzero")
    full = open_checkpoint(tmp_path / "dreamzero")
    assert full.kind == "dreamzero" and torch.equal(loaded(tmp_path / "dreamzero", base), loaded(both, base))
    assert (
        json.loads((tmp_path / "dreamzero" / "config.json").read_text())["action_head_cfg"]["config"][
            "train_architecture"
        ]
        == "full"
    )


def test_raw_wan_takes_encoders_that_are_elsewhere(tmp_path: Path) -> None:
    wan, elsewhere = write_wan(tmp_path / "wan", without=IMAGE_FILE), write_wan(tmp_path / "elsewhere")
    sha256 = checkpoint_fingerprint(open_checkpoint(wan))
    adapter = export_peft(tmp_path / "a", replace(LORA, heads_seed=0), base_name="wan", base_sha256=sha256)
    command = ("export", adapter, "--to", "dreamzero", "--base", wan, "--out", tmp_path / "dreamzero")
    with pytest.raises(UsageError, match="has no image encoder"):
        wam(*command)
    wam(*command, "--wan", elsewhere)
    assert torch.equal(loaded(tmp_path / "dreamzero", wan), loaded(adapter, wan))


def test_an_adapter_directory_of_the_house_is_read_with_the_base_that_it_records(
    base: Path, adapter: Path, unsure: Path, tmp_path: Path
) -> None:
    def house(name: str, backbone: str, base_sha256: str) -> Path:
        record = {
            "kind": "lora",
            "backbone": backbone,
            "backbone_version": 1,
            "base_sha256": base_sha256,
            "base_name": "base",
            "weights_sha256": "0",
            "encoder_sha256": "0",
            "robot": "droid",
            "robot_sha256": "0",
            "time_base": TimeBase(chunk_s=1.6, video_fps=5),
            "recipe": {},
            "verdict": "none",
            "reason": "made up",
            "trained_on": (),
            "licences": (),
            "provenance": {},
        }
        unrecorded = tmp_path / f"{name}-peft"
        export_peft(unrecorded, LORA, base_name="base", base_sha256="0", base_verified=False)
        names = ("adapter_model.safetensors", "adapter_config.json")
        write_folder(tmp_path / name, {n: (unrecorded / n).read_bytes() for n in names}, record)
        return tmp_path / name

    right = house("right", "dreamzero-14b", checkpoint_fingerprint(open_checkpoint(base)))
    ran = wam("export", right, "--to", "dreamzero", "--base", base, "--out", tmp_path / "dreamzero")
    assert "base verified" in ran.stdout and torch.equal(loaded(tmp_path / "dreamzero", base), loaded(adapter, base))
    with pytest.raises(DataError, match="is not the base of"):
        wam(
            "export",
            house("wrong", "dreamzero-14b", "ab" * 32),
            "--to",
            "dreamzero-lora",
            "--base",
            base,
            "-o",
            tmp_path / "o",
        )
    with pytest.raises(UsageError, match="an adapter of nano; --to dreamzero-lora is for DreamZero's"):
        wam("export", house("nano", "nano", "ab" * 32), "--to", "dreamzero-lora", "--base", base, "-o", tmp_path / "o")


def test_channels_are_put_into_file_order_once_and_said_so(tmp_path: Path) -> None:
    base = write_released(tmp_path / "base")
    lora = some_lora()
    export_peft(tmp_path / "dreamzero-lora", lora, base_name="base", base_sha256="x", base_verified=False)
    slots = slots_as_dict(slot_map(BASES["droid"], base=BASES["agibot"], overrides={"gripper": 20}))
    (tmp_path / "slots.json").write_text(json.dumps(slots))
    words = ("--base", base, "--slots", tmp_path / "slots.json")
    ran = wam_whole("export", tmp_path / "dreamzero-lora", "--to", "peft", *words, "--out", tmp_path / "once")
    assert ran.returncode == 0 and "heads reordered" in ran.stderr, ran.stderr
    assert json.loads((tmp_path / "once" / "wamkit.json").read_text())["channels"] == "file order"
    again = refused("export", tmp_path / "once", "--to", "peft", *words, "--out", tmp_path / "twice")
    assert "in file order already" in again
    (tmp_path / "slots.json").write_text(json.dumps({"action": [], "state": []}))
    empty = refused("export", tmp_path / "dreamzero-lora", "--to", "peft", *words, "--out", tmp_path / "none")
    assert "slots.json: not a file of slots (no action has a slot)" in empty


def test_options_of_a_robot_without_a_robot_are_refused(tmp_path: Path) -> None:
    base = write_released(tmp_path / "base")
    words = ("export", base, "--to", "dreamzero", "--resolution", "640x480", "--out", tmp_path / "out")
    assert "--robot, whose --resolution is given" in refused(*words)
