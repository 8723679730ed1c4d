"""The laboratory: studies that run the real system in a small form, and say with which certainty."""
