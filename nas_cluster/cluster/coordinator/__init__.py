"""The single writer of a run: what is admitted, planned, committed, snapshotted, and what that comes to."""
