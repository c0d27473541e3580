"""Probes: ways to look at a view and say what it gives away."""
