"""What ``k12cv`` and ``k12nlp`` have in common: one training loop, its checkpoints, models on disk, scores.

``fields`` is the server's side and imports no library; everything else runs in the task.
"""
