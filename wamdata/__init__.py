"""Logs to shards: readers, mapping, clips, shards, windows. Names neither torch nor lerobot at its top."""
