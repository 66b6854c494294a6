"""krontime: classify long time series with Kronecker-decomposed attention."""

__version__ = "0.1.0"
