"""Neural architecture search as a job on a Ray cluster."""
