"""A stand-in for CuPy on machines without a GPU; see cupy_standin.py."""
