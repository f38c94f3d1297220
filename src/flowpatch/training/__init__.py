"""Training, its checkpoints, and the scores of what was trained."""
