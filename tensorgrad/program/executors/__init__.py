"""What runs a program: NumPy (always there), C, CUDA."""
