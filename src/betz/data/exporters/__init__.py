"""Exporters: sessions and predictions as files that others read."""
