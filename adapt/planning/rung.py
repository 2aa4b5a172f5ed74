"""One rung of the memory ladder: what a training step keeps, in which form.

Standard library alone: planners, the command line and the loop read it without torch. Does not say what a rung costs,
nor which rung fits a device.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Weights = Literal["float32", "bf16", "fp8", "int8", "nf4"]
Activations = Literal["keep", "selective", "full", "offload"]
Optimizer = Literal["adamw", "adamw8bit"]
KEPT: dict[Activations, str] = {
    "keep": "all activations kept",
    "selective": "products and attention kept, the rest recomputed",
    "full": "blocks recomputed",
    "offload": "blocks recomputed, their inputs in host memory",
}


@dataclass(frozen=True)
class Rung:
    """How a LoRA step trades memory for time; none of it but `weights` and `fp8_matmul` changes results past rounding.

    Args:
        weights: of the blocks' frozen linears; everything else stays in the model's own dtype.
        fp8_matmul: fp8 products forward and for the input's gradient, where the GPU has them; needs fp8 weights.
        activations: what each block keeps for its backward pass.
        selective_blocks: with `full` or `offload`, so many of the first blocks are `selective` instead.
        micro_batch: samples in one forward and backward pass.
        compile: compile each block.
        fused_lora: base product and adapter as one function.

    Raises:
        ValueError: a value is not known, or two of them exclude each other.
    """

    weights: Weights = "bf16"
    fp8_matmul: bool = False
    activations: Activations = "full"
    selective_blocks: int = 0
    optimizer: Optimizer = "adamw"
    micro_batch: int = 1
    compile: bool = False
    fused_lora: bool = False

    def __post_init__(self) -> None:
        for name, known in (("weights", Weights), ("activations", Activations), ("optimizer", Optimizer)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(
                    f"{name} {getattr(self, name)!r}: not known. Give one of: {', '.join(get_args(known))}."
                )
        if self.fp8_matmul and self.weights != "fp8":
            raise ValueError(f"fp8_matmul with weights {self.weights!r}: products in fp8 need fp8 weights.")
        if self.selective_blocks < 0 or self.micro_batch < 1:
            raise ValueError(
                f"selective_blocks {self.selective_blocks}, micro_batch {self.micro_batch}: "
                "wanted at least 0 and at least 1."
            )
        if self.selective_blocks and self.activations not in ("full", "offload"):
            raise ValueError(
                f"selective_blocks {self.selective_blocks} with activations {self.activations!r}: "
                "it mixes selective blocks into 'full' or 'offload'."
            )

    @property
    def words(self) -> str:
        """One line for people, such as `bf16 weights; blocks recomputed; adamw; micro-batch 1`."""
        kept = KEPT[self.activations]
        if self.selective_blocks:
            kept += f" (the first {self.selective_blocks} keep products and attention)"
        parts = [
            f"{self.weights} weights" + (" and products" if self.fp8_matmul else ""),
            kept,
            self.optimizer,
            f"micro-batch {self.micro_batch}",
            *(["compiled"] if self.compile else []),
            *(["fused LoRA"] if self.fused_lora else []),
        ]
        return "; ".join(parts)
