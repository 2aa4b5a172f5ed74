"""DreamZero, NVIDIA's 14B (and 5B) world action model: our own code, equal to the public reference in numbers."""
