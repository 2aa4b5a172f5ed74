"""`wam doctor`: whether this machine can do the work."""

import typer

from cli import console


def doctor(json: console.Json = False) -> None:
    """Check Python, packages, video codecs, cores, memory, disk and GPU; exit with 1 if something is broken.

    Not yet: the nodes of a Ray cluster, attention kernels, object stores.
    """
    checks = [_python(), *_packages(), _clash(), _av1(), _system_ffmpeg(), _machine(), _disk(), _gpu()]
    if json:
        console.as_json([dict(zip(("check", "state", "detail"), c, strict=True)) for c in checks])
    else:
        console.table([list(c) for c in checks], ["check", "state", "detail"])
    if any(state == "broken" for _, state, _ in checks):
        raise typer.Exit(1)


Check = tuple[str, str, str]
PACKAGES = (
    "torch", "torchvision", "lerobot", "datasets", "decord", "webdataset", "ray", "peft", "av", "pyarrow",
    "pydantic", "safetensors", "matplotlib", "jinja2",
)  # fmt: skip
OURS = ("schemas", "wamdata", "adapt", "cli")


def _python() -> Check:
    import platform
    import sys

    good = sys.version_info >= (3, 11)
    return (
        "python",
        "ok" if good else "broken",
        platform.python_version() + ("" if good else "; 3.11 or newer is needed"),
    )


def _packages() -> list[Check]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in PACKAGES:
        if name == "decord" and platform.machine() != "x86_64":
            continue  # there is no such wheel; PyAV reads everything
        try:
            found.append((name, "ok", version(name)))
        except PackageNotFoundError:
            found.append((name, "broken", f"not installed; run `make setup` or `pip install {name}`"))
    return found


def _clash() -> Check:
    """PyPI has other packages that install top-level `adapt` or `schemas`."""
    from importlib.metadata import packages_distributions

    owners = packages_distributions()
    others = {n: sorted({d for d in owners.get(n, []) if d != "wamkit"}) for n in OURS}
    bad = {n: d for n, d in others.items() if d}
    if bad:
        name, who = next(iter(bad.items()))
        return "package names", "broken", f"{', '.join(who)} also installs {name!r}; uninstall it"
    return "package names", "ok", "no other package installs " + ", ".join(OURS)


def _av1() -> Check:
    try:
        import av

        av.CodecContext.create("libdav1d", "r")
    except (ImportError, ValueError) as error:
        return "AV1 decoding", "broken", f"PyAV cannot decode AV1, LeRobot's default codec ({error}); reinstall av"
    return "AV1 decoding", "ok", f"PyAV {av.__version__} brings its own FFmpeg"


def _system_ffmpeg() -> Check:
    from ctypes.util import find_library

    found = find_library("avcodec")
    return "system FFmpeg", "ok", f"{found} found, not used" if found else "none, and none is needed"


def _machine() -> Check:
    import os

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return "machine", "ok" if memory > 4 else "broken", f"{os.cpu_count()} cores, {memory:.0f} GB of memory"


def _disk() -> Check:
    import shutil

    free = shutil.disk_usage(".").free / 1e9
    return "disk", "ok" if free > 2 else "broken", f"{free:.0f} GB free here"


def _gpu() -> Check:
    try:
        import torch
    except ImportError:
        return "GPU", "unknown", "torch cannot be imported"
    if not torch.cuda.is_available():
        return "GPU", "none", "training runs on the CPU: the nano backbone only"
    properties = torch.cuda.get_device_properties(0)
    return "GPU", "ok", f"{torch.cuda.device_count()} x {properties.name}, {properties.total_memory / 1e9:.0f} GB"
