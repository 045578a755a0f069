"""The core: arrays (in `scoring`, texts) in, plain values out."""
