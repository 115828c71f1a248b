"""The distributed part: plain classes, and the modules `ray_*`, which alone import ray."""
