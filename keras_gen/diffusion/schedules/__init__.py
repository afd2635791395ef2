"""Noise schedules: alpha and sigma of any time; the times of training and of samplers."""
