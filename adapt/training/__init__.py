"""The training of a run: the loop, its ranks, its checkpoints, what is told of it."""
