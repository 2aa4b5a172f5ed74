"""Which spans of a film are worth training on, and why the others are not; the whole is `curation.py`."""
