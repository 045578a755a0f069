"""Examples, the files they come from, their split, their template and their mixture."""
