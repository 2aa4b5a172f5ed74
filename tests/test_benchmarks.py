"""The benchmarks run, count and compare what they say; their timings are not judged."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from adapt.backbones.dreamzero.config import preset
from adapt.backbones.dreamzero.model import Settings, build
from adapt.planning.rung import Rung
from benchmarks.engine_step import summary, works
from benchmarks.plain_dit import plain_forward
from benchmarks.train_step import (
    PARTS,
    Bench,
    add_lora,
    attempted,
    descent,
    lora_step,
    main,
    of_all_layers,
    run,
    sample,
    step_work,
    tflop,
)
from schemas.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
TINY = preset("tiny")
DTYPE = torch.float32


def tiny_bench(*, deadline: float) -> Bench:
    cpu = torch.device("cpu")
    return Bench(
        config=TINY,
        device=cpu,
        dtype=torch.float32,
        trained_dtype=torch.float32,
        settings=Settings(),
        compiled=False,
        rank=4,
        steps=1,
        deadline=deadline,
    )


@pytest.mark.slow
def test_every_part_runs_on_a_cpu_and_lands_in_the_file(tmp_path: Path) -> None:
    out = tmp_path / "tiny.json"
    main(["--preset", "tiny", "--device", "cpu", "--steps", "1", "--compare-plain", "--out", str(out)])
    parts = json.loads(out.read_text())["parts"]
    assert list(parts) == list(PARTS)
    for name, part in parts.items():
        assert not part.keys() & {"oom", "error", "skipped"}, f"{name}: {part}"
    for dtype, bound in (("float32", 1e-5), ("bfloat16", 0.05)):
        line = parts["correctness"][dtype]
        assert line.keys() == {"dense", "grouped", "flex"}
        for backend, found in line.items():
            assert found["output"]["relative_to_float32"] < bound, (dtype, backend)
            assert found["gradient"]["relative_to_float32"] < bound, (dtype, backend)
    timed = [p for p in parts.values() if "median_s" in p]
    assert len(timed) == 6 and all(p["tflops"] == pytest.approx(p["tflop_done"] / p["median_s"]) for p in timed)
    assert parts["step"]["loss"] == pytest.approx(parts["forward"]["loss"], rel=0.05)
    assert parts["plain_step"]["times_ours"] > 0


def test_plain_and_our_transformer_agree_in_outputs_and_lora_gradients() -> None:
    base = build(TINY, device="cpu", seed=0, dtype=torch.float64).requires_grad_(False)
    model = add_lora(base, rank=4, dtype=torch.float64)
    model.settings = Settings(activations="full")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    batch, draws = sample(TINY, device="cpu", dtype=torch.float64, has_action=(True, True))
    found = []
    for network in (model, partial(plain_forward, model)):
        loss = lora_step(network, batch, draws)
        found.append((loss, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
        model.zero_grad()
    (loss, gradients), (plain_loss, plain_gradients) = found
    torch.testing.assert_close(plain_loss, loss, rtol=1e-12, atol=0)
    assert gradients.keys() == plain_gradients.keys() and len(gradients) == 2 * 10 * 3 + 14
    for name, gradient in gradients.items():
        tolerance = 1e-12 + 1e-9 * gradient.abs().max().item()
        torch.testing.assert_close(plain_gradients[name], gradient, rtol=0, atol=tolerance, msg=name)


def test_the_plain_transformer_is_the_same_whether_it_recomputes_or_keeps() -> None:
    model = add_lora(build(TINY, device="cpu", seed=0).requires_grad_(False), rank=4, dtype=torch.float32)
    found = []
    for recompute in (True, False):
        loss = lora_step(partial(plain_forward, model, recompute=recompute), *sample(TINY, device="cpu", dtype=DTYPE))
        found.append([loss, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
        model.zero_grad()
    assert len(found[0]) > 1 and all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_rows_of_the_comparison_begin_with_the_same_step() -> None:
    """Of each model the first step: later ones have descended."""
    rows = works(replace(tiny_bench(deadline=time.monotonic() + 60), rung=Rung(activations="full", fused_lora=True)))
    first = [rows[name]().item() for name in ("plain_recomputed", "recomputed", "planned")]
    assert first == pytest.approx([first[0]] * 3, rel=1e-5)
    assert rows["plain_kept"]().item() < first[0]


def test_ratios_are_the_plain_ports_seconds_over_ours() -> None:
    seconds = {"plain_recomputed": [6.0, 4.0, 8.0], "plain_kept": [3.0], "recomputed": [5.0], "encoders": [2.0]}
    seconds |= {"selective": [4.0], "kept": [2.0], "planned": [2.5, 2.0, 4.0]}
    told = summary(seconds, encoding=0.25)["times_ours"]
    assert told["recomputed"] == {"min_s": 4 / 5, "median_s": 6 / 5} and told["kept"]["min_s"] == 3 / 2
    assert told["as_run"] == {"min_s": 4 / 2, "median_s": 6 / 2.5}
    assert told["as_run_with_encoders"]["min_s"] == (4 + 2) / 2
    assert told["as_run_with_encoders_at_its_rate"]["min_s"] == (4 + 0.25 * 4) / 2


def test_the_plain_transformer_refuses_a_sample_without_actions() -> None:
    batch, draws = sample(TINY, device="cpu", dtype=torch.float32, has_action=(True, False))
    with pytest.raises(UsageError, match="a sample has no actions"):
        lora_step(partial(plain_forward, build(TINY, device="cpu", seed=0)), batch, draws)


@pytest.mark.parametrize("activations", ["keep", "full"])
def test_operations_of_all_layers_follow_from_those_of_one_and_two(activations: str) -> None:
    count = partial(tflop, work=step_work, rank=4, settings=Settings(activations=activations))
    assert of_all_layers(TINY, count) == pytest.approx(count(TINY), rel=1e-12)


@pytest.mark.parametrize("trained", [torch.float32, torch.bfloat16])
def test_a_16_bit_base_trains_in_either_dtype_by_both_formulations(trained: torch.dtype) -> None:
    base = build(TINY, device="cpu", seed=0, dtype=torch.bfloat16).requires_grad_(False)
    model = add_lora(base, rank=4, dtype=trained)
    learnt = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in learnt} == {trained}
    batch, draws = sample(TINY, device="cpu", dtype=torch.bfloat16)
    losses = [
        lora_step(network, batch, draws, descend=descent(learnt)) for network in (model, partial(plain_forward, model))
    ]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=0.01)


def test_a_step_moves_16_bit_parameters_by_way_of_float32_masters() -> None:
    parameter = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    descend = descent([parameter])
    for _ in range(400):  # 400 steps of 1e-5 are one of bfloat16's 0.0039 below 1; each alone is lost in it
        parameter.grad = torch.ones_like(parameter)
        descend()
    assert parameter.item() == 1 - 2**-8
    assert parameter.grad is None


def test_a_part_that_runs_out_of_memory_is_put_down_and_the_next_goes_on() -> None:
    results: dict[str, dict] = {}
    with attempted(results, "step"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with attempted(results, "forward"):
        raise RuntimeError("no kernel\nmore")
    assert results == {"step": {"oom": True}, "forward": {"error": "RuntimeError: no kernel"}}


def test_nothing_starts_past_the_budget_and_the_file_says_so() -> None:
    saved: list[dict] = []
    results = run(
        tiny_bench(deadline=time.monotonic() - 1), ["ceiling", "correctness"], lambda r: saved.append(dict(r))
    )
    assert results == {"ceiling": {"skipped": "budget"}, "correctness": {"skipped": "budget"}}
    assert [list(content) for content in saved] == [["ceiling"], ["ceiling", "correctness"]]


def test_the_benchmark_imports_with_torch_alone() -> None:
    """On a borrowed GPU machine there is torch, and little else."""
    program = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pydantic", "yaml", "ray", "lerobot", "decord", "diffusers", "transformers", "peft"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
import benchmarks.train_step
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
