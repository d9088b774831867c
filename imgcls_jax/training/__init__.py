"""A Run -> its results: the loop and what it needs. What a step does is not its business."""
