"""Configurations, the scripts that reproduce every table, and their committed results."""
