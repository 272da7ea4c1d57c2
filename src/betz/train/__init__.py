"""Pretraining of models on many sessions."""
