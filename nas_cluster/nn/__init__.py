"""Torch blocks that two or more spaces use."""
