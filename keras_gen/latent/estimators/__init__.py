"""Gradients of expectations over categories."""
