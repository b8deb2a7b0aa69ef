"""What an error means, in words for a student of fifteen: what happened, where, and what to do next.

An explanation names the values of the very error it explains, in English and in Chinese, and has a code
of the catalogue. Errors of NumPy, PyTorch, pandas, scikit-learn and others are recognised by their names
and texts: nothing is imported but the standard library. The texts are those of the libraries' sources.

Importing the package imports all of it, so that an explanation is given whole or not at all.
"""

from k12ai.explain.ends import explain_end
from k12ai.explain.exceptions import explain
from k12ai.explain.model import UNKNOWN, Explanation, Position, told

__all__ = ["UNKNOWN", "Explanation", "Position", "explain", "explain_end", "told"]
