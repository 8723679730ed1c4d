"""Batteries that every implementation of a contract passes, for these tests and for users' own (layer 5)."""
