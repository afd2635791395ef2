"""Derivatives by automatic differentiation, divergences, ordinary differential equations."""
