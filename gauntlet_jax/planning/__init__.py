"""What a run will ask of a machine and a network, judged before it begins (layer 5)."""
