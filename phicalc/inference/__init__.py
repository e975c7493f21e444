"""From a structure and its external conditions to results: one, many, and their responses."""
