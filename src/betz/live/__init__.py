"""Decoding live: the loop, its clock, where bins come from and where predictions go."""
