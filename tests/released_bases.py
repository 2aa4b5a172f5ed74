"""A tiny released base as its repository would hold it."""

from pathlib import Path

from dreamzero_checkpoints import write_released

CARD = "---\nlicense: apache-2.0\ntags: [robotics]\n---\n# A base\n"


def write_repository(folder: Path) -> Path:
    """A released checkpoint with a card, and with files that nobody needs."""
    write_released(folder)
    (folder / "README.md").write_text(CARD)
    for name in (
        "experiment_cfg/conf.yaml",
        "tensorrt/model.safetensors",
        "training_args.bin",
        "experiment_cfg/a/b.yaml",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x: 1\n")
    return folder


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))
