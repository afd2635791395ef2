"""Gradient estimators of expectations over categorical variables."""
