"""Quantizers, with and without a codebook, VQ-VAE and VQGAN."""
