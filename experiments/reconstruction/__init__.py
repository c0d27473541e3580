"""Private images and statistics from what FedAvg and CoDream let pass, by the same adversaries, side by side."""
