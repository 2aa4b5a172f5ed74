"""Film without actions; the reader is `reader.py`."""
