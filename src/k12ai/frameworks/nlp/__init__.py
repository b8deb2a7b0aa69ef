"""The framework ``k12nlp``: which class a text is of, with PyTorch.

``framework`` and ``schema`` are the server's side and import no library; everything else runs in the task.
"""
