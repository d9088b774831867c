"""A split -> batches on the host: order, streams, batches, caches, and what cannot be read."""
