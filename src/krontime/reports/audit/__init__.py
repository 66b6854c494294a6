"""What a data set's own split says before a model does: leaks, controls, and how far one split can be believed."""
