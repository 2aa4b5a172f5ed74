"""AgiBot World recordings; the reader is `reader.py`."""
