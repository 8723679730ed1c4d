"""Model, data, sharded training and evaluation steps, baselines (layer 2)."""
