"""What learns (Zoph & Le 2017, Figure 3): controller replicas and parameter-server shards. No I/O: read this first."""
