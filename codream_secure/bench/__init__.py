"""Measurements of speed, each against the published method's own formulation on the same machine."""
