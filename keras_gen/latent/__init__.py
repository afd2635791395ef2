"""Latent variables: Gaussian divergences (reparameterization and the VAE family are to follow)."""
