"""GPUs by name, by class and by what the driver says."""

import pytest

from adapt.planning.gpus import CLASSES, KNOWN, at_hand, matched, named, unknown
from schemas.errors import UsageError


@pytest.mark.parametrize("size", CLASSES)
def test_a_class_has_its_memory_and_says_whose_speed_it_has(size: str) -> None:
    gpu = named(f"{size}GB")
    card = next(g for g in KNOWN if g.name == CLASSES[size])
    assert gpu.memory_gb == float(size) and CLASSES[size] in gpu.name
    assert (gpu.bf16_tflops, gpu.bandwidth_gb_s) == (card.bf16_tflops, card.bandwidth_gb_s)
    assert gpu == named(size) and gpu.usable_gb < gpu.memory_gb - 1


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100 80 GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 40 GB"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A10G", "A10"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000 Blackwell"),
        ("NVIDIA GB200", "GB200"),
    ],
)
def test_a_device_is_told_by_its_name_and_has_the_memory_it_has(device: str, name: str) -> None:
    found = matched(device, 12_345_678_901)
    assert found is not None and found.name == name and found.memory_gb == pytest.approx(12.345678901)


def test_a_device_that_is_not_known_gets_its_memory_and_a_cautious_speed() -> None:
    assert matched("NVIDIA GeForce GTX 1080", 8 * 10**9) is None
    card = unknown("Some Card", 50 * 10**9)
    assert card.memory_gb == 50 and card.fp8_tflops is None and "Some Card" in card.name
    assert card.bf16_tflops == min(g.bf16_tflops for g in KNOWN if g.memory_gb <= 50)
    assert unknown("Small", 4 * 10**9).memory_gb == 4


def test_names_are_found_by_their_parts_and_others_refused() -> None:
    assert named("h200").name == "H200" and named("rtx 4090").name == "RTX 4090" and named("L4").name == "L4"
    assert named("A10").name == "A10" and named("A100").name.startswith("A100")
    with pytest.raises(UsageError, match=r"GPU 'banana': not known\. Give a class \(24, 32, 48, 80, 141 GB\)"):
        named("banana")
    with pytest.raises(UsageError, match="not known"):
        named("17")


def test_fp8_is_twice_bf16_where_there_is_any() -> None:
    for gpu in KNOWN:
        assert gpu.fp8_tflops is None or gpu.fp8_tflops == pytest.approx(2 * gpu.bf16_tflops, rel=0.02), gpu.name


def test_without_cuda_none_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert at_hand() is None
