"""Looking at a dataset and preparing it: check, figures, pictures, record files."""
