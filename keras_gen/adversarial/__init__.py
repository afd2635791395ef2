"""Generative adversarial networks: a generator against a discriminator, trained with one loss."""
