"""Riyaz trains, adapts, compares and runs language models on the CPU people already have."""

__version__ = "0.1.0"
