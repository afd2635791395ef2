"""Latent variables: reparameterization, gradient estimators, and the VAE family."""
