"""The distributed part: plain classes, and `ray_wiring`, the one module that imports ray."""
