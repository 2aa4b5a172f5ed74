"""What is wrong with a source and what to do about it: every episode looked at, nothing written into the source."""
