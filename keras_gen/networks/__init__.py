"""Neural networks and their building blocks, independent of any generative model."""
