"""Tasks that last: catalogue, tables, locks, embeddings."""
