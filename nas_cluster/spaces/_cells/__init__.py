"""What spaces of cells have in common: cells of steps, each of which reads two earlier states. No torch."""
