"""Train, validation and report parts by session, so that neighbours and duplicates never straddle."""

import hashlib
from collections.abc import Sequence

from schemas.manifest import SampleInfo, Split
from schemas.recipe import SplitRule


def assign_splits(samples: Sequence[SampleInfo], rule: SplitRule) -> dict[str, Split]:
    """The split of every clip key. Sessions that share content are one group.

    With fewer than three groups everything is `train`: nothing can be held out honestly.
    """
    group_of = _groups(samples)
    groups = list(dict.fromkeys(group_of[s.key] for s in samples))
    if len(groups) < 3:
        return {s.key: "train" for s in samples}
    if rule.by == "hash":
        groups.sort(key=lambda g: hashlib.sha256(f"{rule.seed}/{g}".encode()).digest())
    test = min(max(1, round(rule.test * len(groups))), len(groups) - 2) if rule.test else 0
    val = min(max(1, round(rule.val * len(groups))), len(groups) - test - 1) if rule.val else 0
    train = len(groups) - test - val
    part: dict[str, Split] = {}
    for at, group in enumerate(groups):
        part[group] = "train" if at < train else "val" if at < train + val else "test"
    return {s.key: part[group_of[s.key]] for s in samples}


def _groups(samples: Sequence[SampleInfo]) -> dict[str, str]:
    """Per clip key, the name of its group: the smallest content hash among sessions joined by equal content."""
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    for sample in samples:
        parent[root(f"s/{sample.session}")] = root(f"c/{sample.content_sha256}")
    smallest: dict[str, str] = {}
    for sample in samples:
        at = root(f"s/{sample.session}")
        smallest[at] = min(smallest.get(at, sample.content_sha256), sample.content_sha256)
    return {s.key: smallest[root(f"s/{s.session}")] for s in samples}
