"""The decoders that a lab already has: what Betz is measured against."""
