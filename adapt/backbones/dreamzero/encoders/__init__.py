"""DreamZero's frozen encoders (video, text, image) from diffusers and transformers, loading the original keys."""
