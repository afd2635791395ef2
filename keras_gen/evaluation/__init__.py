"""Visualization and evaluation of samples."""
