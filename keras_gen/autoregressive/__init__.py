"""Autoregressive models of binary vectors, pixels and code sequences, and sequence packing."""
