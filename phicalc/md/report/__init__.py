"""Analysis of a finished run: figures, pictures and one HTML page."""
