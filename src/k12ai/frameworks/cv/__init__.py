"""The framework ``k12cv``: which class a picture is of, with PyTorch.

``framework`` and ``schema`` are the server's side and import no library; everything else runs in the task.
"""
