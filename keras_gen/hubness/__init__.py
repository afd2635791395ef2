"""Hubness (points that are neighbours of very many others): measures, reduction methods, and latent samplers."""
