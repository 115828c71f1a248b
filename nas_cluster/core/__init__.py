"""The words every other package uses: decisions, architectures, evaluations, errors, seeds, clock."""
