"""What a model scores: a model or a `server` answers, `inscl.core.scoring` compares, `evaluate` does a whole task."""
