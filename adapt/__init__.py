"""Shards to adapter: backbones, latents, training, evaluation, report, export."""
