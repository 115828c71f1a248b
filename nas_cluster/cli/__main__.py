"""`python -m nas_cluster.cli` is `nas-cluster`."""

from nas_cluster.cli import main

main()
