"""Normalizing flows: bijectors, base distributions, and models built from them."""
