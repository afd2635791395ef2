"""Diffusion models: training, sampling, image editing and likelihoods."""
