"""The framework ``k12ml``: classical machine learning with scikit-learn.

``framework`` and ``schema`` are the server's side and import no library; everything else runs in the task.
"""
