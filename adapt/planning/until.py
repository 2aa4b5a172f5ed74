"""A time of day, a date or a span as the moment at which a run has to be done."""

import re
from datetime import datetime, timedelta

from schemas.errors import UsageError

_SPAN = re.compile(r"\+(\d+(?:\.\d+)?)\s*(h|min|m|d)")
_SECONDS = {"h": 3600, "min": 60, "m": 60, "d": 86400}


def ends_at(text: str, now: datetime) -> float:
    """Seconds since the epoch of `07:30` (today's, or tomorrow's if it has passed), `2026-11-23T07:30` or `+8h`.

    Raises:
        UsageError: it is none of these, or has passed.
    """
    if span := _SPAN.fullmatch(text.strip()):
        return (now + timedelta(seconds=float(span[1]) * _SECONDS[span[2]])).timestamp()
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}", text.strip()):
            hour, minute = map(int, text.split(":"))
            then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return (then if then > now else then + timedelta(days=1)).timestamp()
        then = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"until {text!r}: no time. Give 07:30, 2026-11-23T07:30 or +8h.") from None
    then = then if then.tzinfo else then.replace(tzinfo=now.tzinfo)
    if then <= now:
        raise UsageError(f"until {text!r}: has passed. Give a later time.")
    return then.timestamp()
