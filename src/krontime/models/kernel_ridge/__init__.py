"""The closed-form classifier: families of fixed features, a calibrated ridge regression on each, and their mixture."""
