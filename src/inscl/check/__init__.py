"""The gate before a release: `assessment` scores a model, `gate` compares two, `formats` tells CI systems."""
