"""A step of training as it is told, for what shows and draws them."""

from adapt.training.loop import Tick

FIRST = Tick(
    step=1,
    steps=100,
    loss=0.3,
    parts={"video": 0.2, "action": 0.1},
    lr=1e-4,
    val_error=None,
    hold=0.0375,
    resumed_from=0,
    seconds=2.0,
    wait_share=0.25,
    samples=8,
    encoded=0,
    peak_bytes=0,
)
