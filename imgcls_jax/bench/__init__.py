"""Measuring the step, the input and the start, and what compilers make of a step."""
