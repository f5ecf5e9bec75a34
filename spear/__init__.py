"""Spear: an embeddable actor runtime for AI operations, on Trio."""
