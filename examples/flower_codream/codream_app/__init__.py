"""CoDream with protected sums, started by Flower."""
