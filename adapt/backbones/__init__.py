"""The models that adapt: `nano`, and `dreamzero`. Which there are: `registry`; what the engine asks of one: `base`."""
