"""Plain numpy logs; the reader is `reader.py`."""
