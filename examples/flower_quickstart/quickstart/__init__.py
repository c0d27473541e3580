"""Softmax regression on digits: what every node trains, and how their replies are summed."""
