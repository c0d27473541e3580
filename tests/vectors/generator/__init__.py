"""Makes the test vectors with the protocol's own code, its sources of randomness replaced by a seeded stream."""
