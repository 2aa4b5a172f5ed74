"""A curation as a label table: every shot a row, so that no clip crosses a cut, and every drop with its reason.

    episode,start_s,end_s,shot,use,reason
    kitchen,0.0,12.48,1,both,
    kitchen,12.48,19.2,2,none,static: nothing moves for 6.7 s (allowed 5 s)
    blank,,,,drop,no shot is kept (black: black for 2.0 s)

Times are those of the shots' first frames, in whole microseconds and never later than the frame.
"""

from typing import Any

from wamdata.curate.curation import Curation, Film


def table_of(curation: Curation) -> list[dict[str, Any]]:
    """Rows for `wamdata.label_table.write_table`; every film has one."""
    return [row for film in curation.films for row in _rows(film)]


def _rows(film: Film) -> list[dict[str, Any]]:
    if film.problem:
        return [{"episode": film.key, "use": "drop", "reason": f"unreadable: {film.problem}"}]
    if not film.kept:
        said = "; ".join(dict.fromkeys(f"{s.reason}: {s.words}" for s in film.shots[:3]))
        more = f" and {len(film.shots) - 3} more" if len(film.shots) > 3 else ""
        return [{"episode": film.key, "use": "drop", "reason": f"no shot is kept ({said}{more})"}]
    last = film.shots[-1]
    return [
        {
            "episode": film.key,
            "start_s": _seconds(shot.start_s),
            "end_s": "" if shot is last else _seconds(shot.stop_s),
            "shot": shot.number,
            "use": "none" if shot.reason else "both",
            "reason": f"{shot.reason}: {shot.words}" if shot.reason else "",
        }
        for shot in film.shots
    ]


def _seconds(at_s: float) -> str:
    return f"{int(at_s * 1e6 + 1e-3) / 1e6:.6f}"
