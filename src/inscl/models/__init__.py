"""Models, loaded from wherever they are, and what their kernels can do."""
