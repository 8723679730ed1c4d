"""Peers, validators and the clock that moves them (layer 4)."""
