"""A finished run, or several of them, as one HTML page that needs no network."""
