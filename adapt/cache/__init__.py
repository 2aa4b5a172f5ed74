"""Windows through the frozen encoders: which there are, where they lie, how training gets them."""
