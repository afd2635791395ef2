"""Noise schedules: alpha and sigma as functions of time; distributions of training times, time grids of samplers."""
