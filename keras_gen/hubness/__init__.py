"""Hubness: points that are neighbours of very many others, how to measure it, and latents chosen by it."""
