"""LeRobot data sets; the reader is `reader.py`."""
