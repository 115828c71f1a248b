"""Training of one child, written for throughput: see README.md in this folder."""
