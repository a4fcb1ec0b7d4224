"""Data: reading files, data sets, and batches of them."""

from tensorgrad.data.datasets import (
    Dataset,
    DatasetError,
    ImageFolder,
    Subset,
    TensorDataset,
    digits,
    idx_folder,
    random_split,
)
from tensorgrad.data.files import write_atomically
from tensorgrad.data.idx import IdxError, read_idx, write_idx
from tensorgrad.data.loader import DataLoader

__all__ = [
    "DataLoader",
    "Dataset",
    "DatasetError",
    "IdxError",
    "ImageFolder",
    "Subset",
    "TensorDataset",
    "digits",
    "idx_folder",
    "random_split",
    "read_idx",
    "write_atomically",
    "write_idx",
]
