"""Published weights: files -> tensors -> our variables, adapted to another image size."""
