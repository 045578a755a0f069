"""One stage, from its plan to its scores."""
