"""Whole pipelines in the format of diffusers: their folders, their scheduler files, how prompts become conditions."""
