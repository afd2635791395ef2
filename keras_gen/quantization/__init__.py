"""Vector quantizers and VQ-VAE."""
