"""Published weights: files -> tensors -> leaves of our variables, fitted to another size."""
