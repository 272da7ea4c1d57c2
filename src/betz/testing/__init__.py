"""Contracts that any decoder, importer or split has to keep; outsiders can run them on their own."""

from betz.testing.decoders import check_decoder
from betz.testing.splits import check_split

__all__ = ["check_decoder", "check_split"]
