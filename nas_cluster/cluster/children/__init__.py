"""Where children are trained: the queue, the slots that serve it, and the warm process below each slot."""
