"""Our runs beside figures that others published, on exactly the same data sets and resamples."""
