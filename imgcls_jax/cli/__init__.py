"""The verbs of `imgcls`: cli/VERB.py has `main(words, overrides) -> exit code or None`."""
