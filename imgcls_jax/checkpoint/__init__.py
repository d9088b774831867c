"""Checkpoints: save, restore, verify. Orbax writes the arrays; nothing else imports it.

A step is one folder and one commit of three items: `weights` (params, model_state, ema),
`training` (step, opt_state) and `config` (JSON, with the score). Orbax restores flipped bits
silently and takes an empty folder for a step: here a commit is a marker file, written after a
digest file (digests.py) that is compared when restoring.
"""
