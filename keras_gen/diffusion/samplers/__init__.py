"""Samplers of diffusion models, their loop, and guidance."""
