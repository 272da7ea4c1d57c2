"""Simulated recordings with known truth: reaching tasks, tuned populations, drift between days."""
