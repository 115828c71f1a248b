"""The parts of a run as Ray actors. Beside `operations`, the only room that imports ray."""
