"""Shards into other shards: merge, filter, split again, another shard size. The input is never touched."""

import ast
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from schemas.errors import UsageError
from schemas.manifest import Manifest, SampleInfo, merged
from schemas.recipe import SplitRule
from schemas.record import sha256_of
from wamdata.clips import from_sample
from wamdata.shards import MANIFEST, ShardWriter, read_manifest, read_members
from wamdata.split import assign_splits

_COMPARE: dict[type, Callable[[Any, Any], bool]] = {
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
FIELDS = ("key", "rows", "seconds", "episode", "session", "split")


def reshard(
    sources: Sequence[Path],
    out: Path,
    *,
    where: str | None = None,
    shard_mb: float = 256.0,
    rule: SplitRule | None = None,
    on_clip: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Clips of `sources` for which `where` holds, written to new shards in `out`.

    Splits are kept as they are when one source is given and no `rule`; otherwise they are assigned anew.

    Raises:
        UsageError: `out` exists, sources differ in embodiment, the expression is wrong or keeps nothing.
    """
    if not 0 < shard_mb < 1e6:
        raise UsageError(f"--shard-mb {shard_mb:g}: give a size in MB, above 0.")
    manifests = [read_manifest(s) for s in sources]
    _same_robot(sources, manifests)
    keep = parse_where(where) if where else lambda sample: True
    chosen = [(s, m, sample) for s, m in zip(sources, manifests, strict=True) for sample in m.samples if keep(sample)]
    if not chosen:
        raise UsageError(f"--where {where!r} keeps no clip of {sum(len(m.samples) for m in manifests)}. Loosen it.")
    _no_key_twice([sample.key for _, _, sample in chosen])
    partial = _new_folder(out)
    writer = ShardWriter(partial, "shard", shard_bytes=round(shard_mb * 1e6))
    for done, (folder, manifest, sample) in enumerate(chosen, start=1):
        shard, _ = manifest.find(sample.key)
        writer.add(from_sample(read_members(folder / shard.name, sample)))
        on_clip(done, len(chosen))
    shards = writer.close()
    split_rule = rule or manifests[0].split_rule
    samples = [s for shard in shards for s in shard.samples]
    if rule is None and len(manifests) == 1:
        splits = {s.key: s.split for s in manifests[0].samples}
    else:
        splits = assign_splits(samples, split_rule)
    shards = tuple(
        s.model_copy(update={"samples": tuple(m.model_copy(update={"split": splits[m.key]}) for m in s.samples)})
        for s in shards
    )
    fingerprint = sha256_of([[m.fingerprint for m in manifests], where, shard_mb, split_rule.as_dict()])
    result = merged(manifests, shards=shards, split_rule=split_rule, fingerprint=fingerprint)
    result.write_json(partial / MANIFEST)
    os.replace(partial, out)
    return result


def parse_where(expression: str) -> Callable[[SampleInfo], bool]:
    """A predicate over a clip's metadata, e.g. `seconds > 5 and "kitchen" in session`. Nothing is executed.

    Raises:
        UsageError: it is no comparison of the known fields.
    """
    problem = f"--where {expression!r}: compare {', '.join(FIELDS)} with and, or, not, in, ==, <, >."
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise UsageError(problem) from None

    def value(node: ast.expr, sample: SampleInfo) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name(id=name) if name in FIELDS:
                return getattr(sample, name)
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [value(i, sample) for i in items]
            case ast.BoolOp(op=ast.And(), values=values):
                return all(value(v, sample) for v in values)
            case ast.BoolOp(values=values):
                return any(value(v, sample) for v in values)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not value(operand, sample)
            case ast.Compare(left=left, ops=ops, comparators=rights) if all(type(o) in _COMPARE for o in ops):
                values = [value(left, sample), *(value(r, sample) for r in rights)]
                return all(_COMPARE[type(o)](a, b) for o, a, b in zip(ops, values[:-1], values[1:], strict=True))
            case _:
                raise UsageError(problem)

    def predicate(sample: SampleInfo) -> bool:
        try:
            return bool(value(tree, sample))
        except TypeError as error:
            raise UsageError(f"--where {expression!r}: {error}.") from None

    return predicate


def _same_robot(sources: Sequence[Path], manifests: list[Manifest]) -> None:
    for source, manifest in zip(sources[1:], manifests[1:], strict=True):
        if manifest.embodiment.digest() != manifests[0].embodiment.digest():
            raise UsageError(
                f"{source} holds robot {manifest.embodiment.name!r}, {sources[0]} holds "
                f"{manifests[0].embodiment.name!r}: one set of shards holds one robot. Ingest both with one --robot."
            )


def _no_key_twice(keys: list[str]) -> None:
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise UsageError(f"clip {key!r} is in the sources twice. Give each source once.")
        seen.add(key)


def _new_folder(out: Path) -> Path:
    if out.exists():
        raise UsageError(f"{out}: exists already. Give a new folder.")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial
