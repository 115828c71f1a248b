"""One session of a run, from its start to its end: who supervises the parts, how it stops, what follows a search."""
