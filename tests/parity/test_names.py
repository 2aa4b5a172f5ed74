"""Names, shapes and order of the released checkpoints: closed forms against the reference's own listing."""

import json
from math import prod

import pytest
from goldens import golden_json

from adapt.backbones.dreamzero import names
from adapt.backbones.dreamzero.config import PRESETS, DreamZeroConfig
from adapt.backbones.dreamzero.config_json import config_json, config_of
from adapt.backbones.dreamzero.shards import plan_shards, shard_file

SIZES = {"14b": (2146, 1317, 814), "5b": (1828, 997, 614)}
WIDTH = {"float32": 4, "bfloat16": 2}


def listing(size: str) -> dict:
    return golden_json(f"keys_{size}")


def as_shapes(listed: dict[str, list[int]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in listed.items()}


def wrapped(config: DreamZeroConfig, shapes: names.Shapes) -> names.Shapes:
    """A released layout whose DiT is wrapped by the reference's peft."""
    full = {n: s for n, s in names.checkpoint_shapes(config).items() if not n.startswith(names.MODEL)}
    return full | {names.MODEL + names.WRAPPED + name: shape for name, shape in shapes.items()}


@pytest.mark.parametrize("size", SIZES)
def test_every_name_and_shape_of_a_released_checkpoint_is_known_in_order(size: str) -> None:
    want, config = listing(size), PRESETS[size]
    got = names.checkpoint_shapes(config)
    assert list(got.items()) == list(as_shapes(want["full.checkpoint_keys"]).items())
    assert (len(got), len(names.dit_shapes(config))) == SIZES[size][:2]
    assert sum(map(prod, got.values())) == want["num_params_total"]
    parts = {"action_head." + part: count for part, count in want["parameter_counts_by_component"].items()}
    assert parts == {p: sum(prod(s) for n, s in got.items() if n.startswith(p)) for p in parts}
    prefixes = want["full.trainable_parameter_prefix_counts"]
    assert prefixes == {p: len(names.dit_shapes(config)) if p == "action_head.model" else 0 for p in prefixes}
    assert want["full.checkpoint_dtypes_as_constructed"] == want["lora.checkpoint_dtypes_as_constructed"]
    assert want["full.checkpoint_dtypes_as_constructed"] == [f"torch.{config_json(config)['model_dtype']}"]


@pytest.mark.parametrize("size", SIZES)
def test_wan_lacks_the_fourteen_tensors_of_the_heads(size: str) -> None:
    want, config = listing(size), PRESETS[size]
    fresh = names.fresh_names(config)
    assert fresh == want["dit_keys_not_in_wan_checkpoint"] and len(fresh) == 14
    rest = {name: shape for name, shape in names.dit_shapes(config).items() if name not in fresh}
    assert rest == as_shapes(want["dit_pretrained_keys_expected"])


@pytest.mark.parametrize("size", SIZES)
def test_lora_names_are_those_of_the_reference(size: str) -> None:
    want, config = listing(size), PRESETS[size]
    prefix = names.MODEL + names.WRAPPED
    only = {prefix + name: shape for name, shape in names.lora_only_shapes(config, rank=4).items()}
    assert list(only.items()) == list(as_shapes(want["lora_only.saved_keys"]).items())
    assert list(only) == want["lora.trainable_parameter_names"]
    assert len(only) == want["lora_only.num_tensors"] == SIZES[size][2]
    assert sum(map(prod, only.values())) == want["lora_only.num_params"]
    full = wrapped(config, names.lora_shapes(config, rank=4))
    assert list(full.items()) == list(as_shapes(want["lora.checkpoint_keys"]).items())


@pytest.mark.parametrize("dtype", WIDTH)
@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("size", SIZES)
def test_shards_are_cut_where_the_reference_cuts_them(size: str, kind: str, dtype: str) -> None:
    want, config = listing(size)[f"{kind}.shards_if_{dtype}"], PRESETS[size]
    shapes = names.checkpoint_shapes(config)
    if kind == "lora":
        shapes = wrapped(config, names.lora_shapes(config, rank=4))
    shards = plan_shards({name: prod(shape) * WIDTH[dtype] for name, shape in shapes.items()}, 5_000_000_000)
    files = {shard_file("model", k, len(shards)): len(held) for k, held in enumerate(shards)}
    assert files == want["tensors_per_file"]
    assert (len(files), next(iter(files))) == (want["num_shards"], want["first_file"])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_config_json_is_the_reference_s_to_the_last_value(size: str, kind: str) -> None:
    want = listing(size)[f"{kind}.config_json"]
    got = config_json(PRESETS[size], train_architecture=kind)
    assert json.dumps(got, sort_keys=True) == json.dumps(want, sort_keys=True)
    assert config_of(want) == PRESETS[size]


def test_a_lora_save_is_one_file_whose_names_follow_the_number_of_blocks() -> None:
    for size in SIZES:
        saved = listing(size)["lora_only.save_run_on_tiny_model"]
        assert saved["files"] == ["config.json", "model.safetensors"]
        assert saved["safetensors_metadata"] == {"format": "pt"}
        assert len(names.lora_only_shapes(DreamZeroConfig(layers=2), rank=4)) == saved["num_tensors"]
        # torch_dtype is the live module's: a saved config.json is the constructed one and that key.
        keys = (set(config_json(PRESETS[size])) - {"_attn_implementation_autoset"}) | {"torch_dtype"}
        assert keys == set(saved["config_json_top_level_keys"])
        assert saved["config_torch_dtype_without_deepspeed"] == saved["config_torch_dtype_bf16"] == "float32"
        assert (saved["dtypes_without_deepspeed"], saved["dtypes_when_module_cast_to_bf16"]) == (["F32"], ["BF16"])


@pytest.mark.parametrize(
    "saved",
    [
        "blocks.0.ffn.0.weight",
        "action_head.model.blocks.0.ffn.0.weight",
        "action_head.model.base_model.model.blocks.0.ffn.0.weight",
        "action_head.model.base_model.model.blocks.0.ffn.0.base_layer.weight",
    ],
)
def test_a_tensor_has_one_name_however_it_was_wrapped(saved: str) -> None:
    assert names.canonical(saved) == "blocks.0.ffn.0.weight"


def test_both_spellings_of_a_lora_factor_are_one_name() -> None:
    want = "blocks.0.ffn.0.lora_A.default.weight"
    assert names.canonical("base_model.model.blocks.0.ffn.0.lora_A.weight") == want
    assert names.canonical("action_head.model.base_model.model." + want) == want
