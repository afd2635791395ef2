"""Losses that judge instead of generating: several labels at once, expected accuracy, contrast of pairs."""
