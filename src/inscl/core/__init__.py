"""The numerical core: arrays in, plain values out."""
