"""Decoders: what turns signals into behavior, bin by bin, and how they are calibrated."""
