"""An export is verified before it gets its name. Does not compare: `adapt.handover.check` does."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import console
from cli.export_source import record_of

if TYPE_CHECKING:
    from adapt.handover.adapter import AdapterRecord
    from adapt.handover.check import Verified


def fresh(out: Path) -> Path:
    """Where an export lies until it is verified."""
    import shutil

    partial = out.with_name(out.name + ".unverified")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    return partial


@dataclass(frozen=True)
class Found:
    """What the verification said, or why there was none."""

    words: str
    verified: "Verified | None" = None

    @property
    def facts(self) -> dict[str, Any]:
        from dataclasses import asdict

        return {"verified": None if self.verified is None else asdict(self.verified), "verification": self.words}


def settled(partial: Path, out: Path, base: Path | None, *, is_verified: bool) -> Found:
    """Verify what was written and give it its name.

    Raises:
        DataError: it does not act as the trained model did; it keeps its preliminary name.
    """
    found = _try(partial, base) if is_verified else Found("not verified: --no-verify")
    partial.rename(out)
    return found


def _try(folder: Path, base: Path | None) -> Found:
    from adapt.handover.check import CHECK, HANDOVER, HOUSE

    record = record_of(folder)
    inner = folder if record is not None else folder / HOUSE
    if record is None and not (inner / HANDOVER).exists():
        return Found("not verified: it does not come from an adapter directory, so there is nothing to compare with")
    if not (inner / CHECK).exists():
        loaded = "loaded, but " if record is not None and _loads(folder, record, base) else ""
        return Found(f"{loaded}not verified: the adapter came without {CHECK}. Export it again from its run")
    if record is not None and record.kind == "lora" and base is None:
        return Found("not verified: give --base to check that it fits its base and acts as trained")
    found = verified(folder, base)
    return Found(found.words, found)


def _loads(folder: Path, record: "AdapterRecord", base: Path | None) -> bool:
    """Whether an adapter directory was loaded, which refuses damage and misfits; a LoRA needs its base for it."""
    from adapt.handover.export import load_adapter

    if record.kind == "lora" and base is None:
        return False
    load_adapter(folder, base)
    return True


def verified(folder: Path, base: Path | None) -> "Verified":
    """Raises DataError if the folder does not act as the trained model did."""
    from adapt.handover.check import verify
    from schemas.errors import DataError

    found = verify(folder, base)
    if not found.is_equal:
        raise DataError(f"{folder}: {found.words}. Do not use it; export it again from its run.")
    return found


def tell(found: "Verified", *, json: bool) -> None:
    """Print what a verification found."""
    if json:
        console.as_json(Found(found.words, found).facts)
    else:
        console.out(found.words)
