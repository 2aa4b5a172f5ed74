"""Zarr replay buffers; the reader is `reader.py`."""
