"""Experiments that are fixed before they are run: what is changed in a recording, with the truth kept beside it."""
