"""Bases and data in, adapters out: exports, packs, mirrors."""
