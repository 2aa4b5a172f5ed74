"""Raw DROID recordings; the reader is `reader.py`."""
