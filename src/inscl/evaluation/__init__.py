"""What a model scores: `generate` or a `server` answers, `scoring` compares, `evaluate` does a whole task."""
