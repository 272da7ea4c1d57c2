"""The networks: the Transformer, its stream state, losses, heads, and models on disk."""
