"""What is fast and against whom: ``python -m bench``. The method is described in README.md."""
