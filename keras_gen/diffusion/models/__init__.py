"""Diffusion models: how they are trained, and what is then possible."""
