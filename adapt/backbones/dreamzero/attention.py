"""Self-attention over a `Layout`, four ways that agree: dense mask, FlexAttention, grouped calls, one varlen call.

`dense`    one call with an (N, N) mask: any device; the simplest, and the one that others are tested against.
`grouped`  one unmasked call for each group of queries with the same keys: no mask, no wasted work, any device.
`flex`     FlexAttention; its block mask comes from the segments' table in milliseconds, without an (N, N) tensor.
`varlen`   all groups of all samples in one `torch.nn.attention.varlen` call (CUDA, 16-bit).

Tensors are (B, N, heads, head width). A plan is built once per forward pass; nothing in it waits for the device.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.backbones.dreamzero.layout import Group, Layout, Range

Backend = Literal["auto", "dense", "flex", "grouped", "varlen"]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
FLEX_BLOCK = 128
FLEX_SHAPES = 128


@dataclass(frozen=True)
class Plan:
    """Attention of all blocks but the last, and of the last, where only live tokens ask."""

    every: Attend
    last: Attend


def plan(layout: Layout, *, backend: Backend, device: torch.device, has_action: tuple[bool, ...] = (True,)) -> Plan:
    """The attention of a layout.

    Args:
        has_action: for each sample; one entry stands for all. Known on the host, so that nothing waits for the device.

    Raises:
        ValueError: the backend is not known or cannot run on `device`.
    """
    alike = has_action[:1] if len(set(has_action)) == 1 else has_action
    whole = (layout.asking, layout.tokens)
    return Plan(
        *(attend(layout, queries, _resolve(backend, device), device, alike) for queries in (whole, layout.live))
    )


def attend(
    layout: Layout, queries: Range, backend: Backend, device: torch.device, has_action: tuple[bool, ...]
) -> Attend:
    """One layer's attention, of the given queries over all tokens."""
    match backend:
        case "dense":
            return partial(_dense, mask=_dense_mask(layout, queries, device, has_action))
        case "grouped":
            return partial(_grouped, parts=_parts(layout, queries, has_action))
        case "flex":
            return partial(_flex, mask=block_mask(layout, queries, device, has_action))
        case "varlen":
            return partial(_varlen, packing=_packing(layout, queries, device, has_action))
    raise ValueError(f"attention {backend!r}: not known. Give one of: dense, flex, grouped, varlen.")


def _resolve(backend: Backend, device: torch.device) -> Backend:
    """FlexAttention on a GPU, grouped calls elsewhere."""
    if backend == "varlen" and device.type != "cuda":
        raise ValueError(f"attention 'varlen' runs on CUDA only, not on {device.type}. Give 'grouped'.")
    if backend != "auto":
        return backend
    return "flex" if device.type == "cuda" else "grouped"


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def unmasked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every query sees every key."""
    return _sdpa(q, k, v)


# Dense


def _dense(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor) -> Tensor:
    return _sdpa(q, k, v, mask)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept here must be of use in training too
def _dense_mask(layout: Layout, queries: Range, device: torch.device, has_action: tuple[bool, ...]) -> Tensor:
    """(B or 1, 1, queries, tokens) bool."""
    masks = [_table(layout if has else layout.without_actions)[_owner(layout)][:, _owner(layout)] for has in has_action]
    return torch.stack(masks)[:, None, queries[0] : queries[1]].to(device)


def _owner(layout: Layout) -> Tensor:
    """(tokens,) the segment of each token."""
    return torch.repeat_interleave(torch.tensor([s.tokens for s in layout.segments]))


def _table(layout: Layout) -> Tensor:
    return torch.tensor(layout.sees)


# Grouped


@dataclass(frozen=True)
class _Part:
    """Samples of a batch that share a table; None means all of them.

    Args:
        groups: queries counted from the first that asks.
        order: where the groups' ranges, one after the other, lie in the order of the queries.
    """

    samples: tuple[int, ...] | None
    groups: tuple[Group, ...]
    order: tuple[int, ...]


@lru_cache(maxsize=64)
def _parts(layout: Layout, queries: Range, has_action: tuple[bool, ...]) -> tuple[_Part, ...]:
    if len(has_action) == 1:
        return (_part(layout, queries, has_action[0], None),)
    members = {kind: tuple(i for i, has in enumerate(has_action) if has == kind) for kind in (True, False)}
    return tuple(_part(layout, queries, kind, samples) for kind, samples in members.items())


def _part(layout: Layout, queries: Range, kind: bool, samples: tuple[int, ...] | None) -> _Part:
    first = queries[0]
    groups = tuple(
        Group(tuple((start - first, stop - first) for start, stop in group.queries), group.keys)
        for group in (layout if kind else layout.without_actions).groups(queries)
    )
    starts = [start for group in groups for start, _ in group.queries]
    return _Part(samples, groups, tuple(sorted(range(len(starts)), key=starts.__getitem__)))


def _grouped(q: Tensor, k: Tensor, v: Tensor, *, parts: tuple[_Part, ...]) -> Tensor:
    if parts[0].samples is None:
        return _by_group(q, k, v, parts[0])
    out = [_by_group(*(torch.cat([t[i : i + 1] for i in part.samples]) for t in (q, k, v)), part) for part in parts]
    order = [i for part in parts for i in part.samples or ()]
    rows = torch.cat(out)
    return torch.cat([rows[order.index(i) : order.index(i) + 1] for i in range(len(order))])


def _by_group(q: Tensor, k: Tensor, v: Tensor, part: _Part) -> Tensor:
    """One call a group; the answers put back in the order of the queries. Traces as one graph."""
    pieces: list[Tensor] = []
    for group in part.groups:
        answer = _sdpa(_take(q, group.queries), _take(k, group.keys), _take(v, group.keys))
        pieces.extend(answer.split([stop - start for start, stop in group.queries], dim=1))
    return torch.cat([pieces[i] for i in part.order], dim=1)


def _take(x: Tensor, ranges: Sequence[Range]) -> Tensor:
    parts = [x[:, start:stop] for start, stop in ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


# FlexAttention


def _flex(q: Tensor, k: Tensor, v: Tensor, *, mask: Any) -> Tensor:
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return _flex_attention(q.device.type)(q, k, v, block_mask=mask).transpose(1, 2)


@lru_cache(maxsize=2)
def _flex_attention(device_type: str) -> Callable[..., Tensor]:
    """Compiled on a GPU; eager on the CPU, where the compiled form has no backward."""
    from torch.nn.attention.flex_attention import flex_attention

    if device_type != "cuda":
        return flex_attention
    # Every (layout, dtype) is one compilation. Past this limit PyTorch would silently run unfused, with N x N scores.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, FLEX_SHAPES)
    return torch.compile(flex_attention, dynamic=False)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def block_mask(layout: Layout, queries: Range, device: torch.device, has_action: tuple[bool, ...]) -> Any:
    """FlexAttention's `BlockMask`, from the table alone.

    A block of queries needs a block of keys if any of their segments' pairs is true, and needs no mask inside if all
    are: two products of small matrices, where `create_block_mask` would look at every (query, key) pair.
    """
    from torch.nn.attention.flex_attention import BlockMask

    owner, void = _owner(layout), len(layout.segments)
    asked = owner[queries[0] : queries[1]]
    tables = torch.stack([_table(layout if has else layout.without_actions) for has in has_action])
    tables = F.pad(tables, (0, 1, 0, 1))  # tokens past the end belong to a segment that sees nothing
    rows, columns = _blocks(asked, void), _blocks(owner, void)
    some = rows @ tables.float() @ columns.T > 0
    full = some & (rows @ (~tables).float() @ columns.T == 0)
    partial_count, partial_index = _ordered(some & ~full, device)
    full_count, full_index = _ordered(full, device)
    on_device = tables.to(device), asked.to(device), owner.to(device)
    return BlockMask.from_kv_blocks(
        partial_count,
        partial_index,
        full_count,
        full_index,
        BLOCK_SIZE=FLEX_BLOCK,
        mask_mod=_mask_mod(*on_device),
        seq_lengths=(len(asked), len(owner)),
    )


def _blocks(owner: Tensor, void: int) -> Tensor:
    """(blocks, segments + 1) float: whether a block of tokens touches a segment."""
    padded = F.pad(owner, (0, -len(owner) % FLEX_BLOCK), value=void).unflatten(0, (-1, FLEX_BLOCK))
    return F.one_hot(padded, void + 1).amax(dim=1).float()


def _ordered(blocks: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """How many key blocks each query block has, and their indices first: (B, 1, rows), (B, 1, rows, columns)."""
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[:, None].to(device), order.int()[:, None].to(device)


def _mask_mod(tables: Tensor, asked: Tensor, owner: Tensor) -> Callable[..., Tensor]:
    """The table looked up token by token; written without a branch on data, as FlexAttention needs."""
    if len(tables) == 1:
        table = tables[0]
        return lambda b, h, q, k: table[asked[q], owner[k]]
    return lambda b, h, q, k: tables[b, asked[q], owner[k]]


# Varlen


@dataclass(frozen=True)
class Packing:
    """Gathers that bring all groups of all samples into one ragged batch.

    Args:
        queries: (total queries,) rows of (B * queries) in packed order; `back` undoes it.
        keys: (total keys,) rows of (B * tokens); a key seen by several groups comes several times.
        query_ends, key_ends: (sequences + 1,) int32 running totals.
    """

    queries: Tensor
    back: Tensor
    keys: Tensor
    query_ends: Tensor
    key_ends: Tensor
    longest_query: int
    longest_key: int


def _packing(
    layout: Layout, queries: Range, device: torch.device, has_action: tuple[bool, ...]
) -> Callable[[int], Packing]:
    """A packing for each batch size: one entry of `has_action` stands for all samples."""
    return lambda batch: pack(layout, queries, device, has_action * batch if len(has_action) == 1 else has_action)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def pack(layout: Layout, queries: Range, device: torch.device, has_action: tuple[bool, ...]) -> Packing:
    """The packing of a batch."""
    asked, wanted, query_lengths, key_lengths = [], [], [], []
    count = queries[1] - queries[0]
    for sample, has in enumerate(has_action):
        for group in (layout if has else layout.without_actions).groups(queries):
            rows = [torch.arange(*r) for r in group.queries]
            asked += [row - queries[0] + sample * count for row in rows]
            columns = [torch.arange(*r) for r in group.keys]
            wanted += [column + sample * layout.tokens for column in columns]
            query_lengths.append(sum(map(len, rows)))
            key_lengths.append(sum(map(len, columns)))
    order = torch.cat(asked)
    return Packing(
        order.to(device),
        order.argsort().to(device),
        torch.cat(wanted).to(device),
        _ends(query_lengths).to(device),
        _ends(key_lengths).to(device),
        max(query_lengths),
        max(key_lengths),
    )


def _varlen(q: Tensor, k: Tensor, v: Tensor, *, packing: Callable[[int], Packing]) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    p = packing(len(q))
    rows, columns, values = q.flatten(0, 1)[p.queries], k.flatten(0, 1)[p.keys], v.flatten(0, 1)[p.keys]
    out = varlen_attn(rows, columns, values, p.query_ends, p.key_ends, p.longest_query, p.longest_key)
    return out[p.back].unflatten(0, (len(q), -1))


def sequences(packing: Packing) -> Iterator[tuple[slice, slice]]:
    """(queries, keys) of each sequence in the packed order."""
    for i in range(len(packing.query_ends) - 1):
        yield (
            slice(int(packing.query_ends[i]), int(packing.query_ends[i + 1])),
            slice(int(packing.key_ends[i]), int(packing.key_ends[i + 1])),
        )


def _ends(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32)
