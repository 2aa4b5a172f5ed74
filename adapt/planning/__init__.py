"""What a run will cost, and how it fits the GPU at hand."""
