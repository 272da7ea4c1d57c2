"""Recordings as sessions: from arrays and files into a store; derived behavior and splits."""
