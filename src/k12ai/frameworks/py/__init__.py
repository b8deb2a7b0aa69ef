"""The framework ``k12py``: a student's own program."""
