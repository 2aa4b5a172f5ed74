"""RLDS data sets, without tensorflow; the reader is `reader.py`."""
