"""Real deployments: members on machines of their own, each with an identity, joined by a transport."""
