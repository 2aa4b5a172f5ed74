"""What lies in a checkpoint folder: kind, names, shapes, dtypes and gaps, told from headers without reading a weight.

Kinds are those of `layouts`. Tensors go by canonical names (see `names`), whatever the layout. Imports no torch until a
tensor is asked for. Nothing is ever unpickled.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from adapt.backbones.dreamzero.config import PRESETS, DreamZeroConfig
from adapt.backbones.dreamzero.config_json import config_of
from adapt.backbones.dreamzero.layouts import Kind, check_index, find_files, kind_of, read_headers, read_json
from adapt.backbones.dreamzero.names import (
    MODEL,
    EncoderSizes,
    Shapes,
    canonical,
    checkpoint_shapes,
    dit_shapes,
    is_head,
    is_image_branch,
    lora_only_shapes,
    lora_shapes,
)
from adapt.backbones.dreamzero.shards import Entry, read_header
from adapt.backbones.dreamzero.sizes import config_from_shapes, encoder_sizes
from schemas.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

BASE_KEY = "wamkit_base_sha256"
SEED_KEY = "wamkit_heads_seed"
ORDER_KEY = "wamkit_channels"  # "file order" once heads were reordered for the reference's servers
Change: TypeAlias = "Callable[[str, Tensor], Tensor]"


def unchanged(name: str, tensor: "Tensor") -> "Tensor":
    """The change that is none."""
    return tensor


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose headers are read and whose tensors are not.

    Args:
        path: the folder, or the one file.
        entries: canonical name to place, in the order of the files; encoder tensors keep their whole names.
        config_json: content of config.json; None where there is none.
        adapter_json: content of adapter_config.json; None where there is none.
        metadata: of the first file.
        beside: names of .pth files in the folder.
    """

    path: Path
    kind: Kind
    entries: Mapping[str, Entry]
    config_json: Mapping[str, Any] | None = None
    adapter_json: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        return list(dict.fromkeys(entry.file for entry in self.entries.values()))

    @property
    def num_bytes(self) -> int:
        return sum(entry.num_bytes for entry in self.entries.values())

    @property
    def dtypes(self) -> dict[str, int]:
        """How many tensors there are of each dtype, most frequent first."""
        counts = Counter(entry.dtype for entry in self.entries.values())
        return dict(counts.most_common())

    @property
    def is_lora(self) -> bool:
        """Whether it holds a LoRA and no base."""
        return self.kind in ("dreamzero-lora", "peft")

    @property
    def config(self) -> DreamZeroConfig:
        """Sizes by config.json, else by the tensors' shapes.

        Raises:
            DataError: neither tells them.
        """
        values = self.config_json or {}
        try:
            if "action_head_cfg" in values:
                told = config_of(values)
                features = self.shapes.get("img_emb.proj.1.weight")  # config.json never says this width
                return told if features is None else replace(told, clip_dim=features[1])
            if self.is_lora:
                raise DataError(
                    "a LoRA without config.json does not tell its base's sizes. Give the sizes of the base."
                )
            config = config_from_shapes(self.shapes)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None
        return replace(config, heads=values["num_heads"]) if "num_heads" in values else config

    @property
    def shapes(self) -> Shapes:
        return {name: entry.shape for name, entry in self.entries.items()}

    @property
    def lora_rank(self) -> int | None:
        """Rank of the LoRA; None where there is none."""
        return next((entry.shape[0] for name, entry in self.entries.items() if ".lora_A." in name), None)

    def part(self, prefix: str) -> dict[str, Entry]:
        """Entries of the DiT (`names.MODEL`; LoRA only where there is nothing else) or of one encoder."""
        if prefix == MODEL:
            return {
                name: entry
                for name, entry in self.entries.items()
                if not name.startswith("action_head.") and (self.is_lora or ".lora_" not in name)
            }
        return {name: entry for name, entry in self.entries.items() if name.startswith(prefix)}

    def expected(self, config: DreamZeroConfig) -> Shapes:
        """What a whole checkpoint of this kind and these sizes holds.

        Encoders are the released ones for the released sizes; else their own tensors tell their sizes.
        """
        if self.is_lora:
            return lora_only_shapes(config, rank=self.lora_rank or 0, targets=self.lora_targets)
        if self.kind == "wan":
            fresh = set(self.fresh(config))
            return {name: shape for name, shape in dit_shapes(config).items() if name not in fresh}
        whole = checkpoint_shapes(config, encoder_sizes_for(config, self.shapes))
        shapes = {canonical(name): shape for name, shape in whole.items()}
        if self.kind == "dreamzero-both":
            shapes |= lora_shapes(config, rank=self.lora_rank or 0, targets=self.lora_targets)
        return shapes

    def missing(self, config: DreamZeroConfig) -> list[str]:
        """Canonical names that should be here and are not."""
        return [name for name in self.expected(config) if name not in self.entries]

    def unexpected(self, config: DreamZeroConfig) -> list[str]:
        """Canonical names that are here and should not be."""
        expected = self.expected(config)
        return [name for name in self.entries if name not in expected]

    def misshapen(self, config: DreamZeroConfig) -> list[str]:
        """Tensors of another shape than the sizes say, each with both shapes."""
        expected, shapes = self.expected(config), self.shapes
        return [
            f"{name} is {shapes[name]}, wanted {shape}"
            for name, shape in expected.items()
            if name in shapes and shapes[name] != shape
        ]

    def fresh(self, config: DreamZeroConfig) -> list[str]:
        """DiT tensors that raw Wan weights have not, and that start anew: all heads, and for the 5B the image branch.

        A group of which a part is here is not fresh: the rest of it is missing.
        """
        if self.kind != "wan":
            return []
        groups = [is_head, is_image_branch] if config.flavour == "ti2v" else [is_head]
        shapes = dit_shapes(config)
        absent = [is_group for is_group in groups if not any(map(is_group, self.entries))]
        return [name for name in shapes if any(is_group(name) for is_group in absent)]

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """Endings of the modules with LoRA, inside their block."""
        modules = (name.split(".lora_A.")[0] for name in self.entries if ".lora_A." in name)
        return tuple(dict.fromkeys(m.split(".", 2)[-1] if m.startswith("blocks.") else m for m in modules))

    def tensors(self, names: Collection[str] | None = None) -> Iterator[tuple[str, "Tensor"]]:
        """(canonical name, tensor) file by file, each file unmapped before the next.

        A tensor may be a view of its file: copy what is to stay.
        """
        from safetensors import safe_open

        wanted = self.entries.keys() if names is None else names
        saved = self.saved_names()
        for path in self.files:
            held = [n for n, entry in self.entries.items() if entry.file == path and n in wanted]
            if held:
                with safe_open(path, "pt") as file:
                    for name in held:
                        yield name, file.get_tensor(saved[name])

    def saved_names(self) -> dict[str, str]:
        """Canonical name to the name in the file."""
        return {canonical(name): name for path in self.files for name in read_header(path)[0]}


def encoder_sizes_for(config: DreamZeroConfig, shapes: Shapes) -> EncoderSizes:
    """Sizes that the encoders beside a DiT of these sizes must have.

    Args:
        shapes: of the encoders' tensors by whole names, which tell where the DiT is of no released size.
    """
    released = EncoderSizes.released(config.flavour)
    return released if config in (PRESETS["14b"], PRESETS["5b"]) else encoder_sizes(shapes, released)


class Lazy(Mapping[str, "Tensor"]):
    """Some of a checkpoint's tensors by name, each read when it is asked for."""

    def __init__(self, checkpoint: Checkpoint, names: Collection[str], *, change: Change = unchanged) -> None:
        """`change` is applied to each (name, tensor) that is read."""
        self._checkpoint, self._names, self._change = checkpoint, names, change
        self._saved = checkpoint.saved_names()

    def __getitem__(self, name: str) -> "Tensor":
        from safetensors import safe_open

        with safe_open(self._checkpoint.entries[name].file, "pt") as file:
            return self._change(name, file.get_tensor(self._saved[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def open_checkpoint(path: Path | str) -> Checkpoint:
    """The checkpoint in a folder, or in one safetensors file.

    Raises:
        UsageError: nothing is there.
        DataError: a shard is missing or cut off, an index disagrees with its files, or the kind is not known.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder. Check the path.")
    if path.name.endswith(".partial"):
        raise DataError(f"{path}: an export that was cut short. Export again.")
    folder = path if path.is_dir() else path.parent
    files, index = find_files(path)
    entries, metadata = read_headers(files)
    if index is not None:
        check_index(index, entries)
    config, adapter = read_json(folder / "config.json"), read_json(folder / "adapter_config.json")
    kind = kind_of(path, list(entries))
    named: dict[str, Entry] = {}
    for name, entry in entries.items():
        if canonical(name) in named:
            raise DataError(f"{entry.file}: {canonical(name)} is here under two names. Save the checkpoint again.")
        named[canonical(name)] = entry
    beside = tuple(sorted(p.name for p in folder.glob("*.pth")))
    return Checkpoint(path, kind, named, config, adapter if kind == "peft" else None, metadata, beside)
