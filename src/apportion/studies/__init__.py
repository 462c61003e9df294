"""Paired comparisons over several seeds, and every paper's claim as an experiment that can fail."""
