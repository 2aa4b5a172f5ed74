"""nano: a small, real world action model of DreamZero's family, trained in minutes on two CPU cores.

Frames are tiled (`canvas`) and encoded by a fitted linear autoencoder (`autoencoder`), states and actions normalised
(`normalizer`), words hashed (`text`). A block-causal transformer (`layout`, `attention`, `model`) is trained by joint
flow matching of future latents and actions (`objective`, `batch`) and acts by denoising both (`policy`).
"""
