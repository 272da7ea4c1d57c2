"""Counts and behavior to tokens and back, and the scale of behavior (numpy only)."""
