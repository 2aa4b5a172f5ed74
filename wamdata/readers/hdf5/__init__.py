"""HDF5 files; the reader is `reader.py`."""
