"""Adversaries' views and the probes that measure what leaks. Probes are not part of this release yet."""
