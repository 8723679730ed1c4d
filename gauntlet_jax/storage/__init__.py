"""What a round leaves behind: artifacts in buckets, digests of parameters, checkpoints (layer 3)."""
