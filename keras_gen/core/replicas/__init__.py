"""Replicas of a model on several devices or in several processes, and what each of them does for all."""
