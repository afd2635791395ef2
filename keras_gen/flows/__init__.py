"""Normalizing flows: bijectors, base distributions, and the models made of them."""
