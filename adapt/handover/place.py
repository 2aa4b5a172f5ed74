"""A file under a second name: linked where the disk allows, else copied. Does not move, and changes no source."""

import errno
import os
import shutil
from pathlib import Path


def link_or_copy(source: Path, target: Path, *, copy: bool = False) -> None:
    """`source` under the name `target` too: a hard link where the disk allows, else a copy with the same times.

    A link to a file is followed first. `target` has its name only when it is whole.
    """
    source = source.resolve()
    partial = target.with_name(target.name + ".partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.unlink(missing_ok=True)
    try:
        if copy:
            raise OSError(errno.EXDEV, "a copy is wanted")
        os.link(source, partial)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES):
            raise
        shutil.copy2(source, partial)
    os.replace(partial, target)


def is_placed(source: Path, target: Path) -> bool:
    """Whether `link_or_copy` has put `source` at `target` before and neither has changed since."""
    if not target.exists():
        return False
    a, b = source.stat(), target.stat()
    return a.st_size == b.st_size and a.st_mtime_ns == b.st_mtime_ns
