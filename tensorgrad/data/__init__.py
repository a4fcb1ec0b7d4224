"""Data: reading files, data sets, and batches of them."""

from typing import TYPE_CHECKING

from tensorgrad.data import transforms
from tensorgrad.data.datasets import ConcatDataset, Dataset, DatasetError, Subset, TensorDataset
from tensorgrad.data.embedded import digits
from tensorgrad.data.idx import IdxError, read_idx, write_idx
from tensorgrad.data.idx_folder import IdxFolder, idx_folder
from tensorgrad.data.images import ImageFiles, image_folder, image_list, read_image
from tensorgrad.data.loader import DataLoader
from tensorgrad.data.npz import read_npz
from tensorgrad.data.samplers import Sampler, StratifiedSampler, WeightedSampler
from tensorgrad.data.splits import k_fold, random_split
from tensorgrad.data.spreadsheets import read_table
from tensorgrad.data.tables import Examples, read_csv, table_examples
from tensorgrad.data.wordpiece import WordPieceTokenizer
from tensorgrad.files import DataFileError, write_atomically
from tensorgrad.hints import unknown_names as _unknown_names

__all__ = [
    "ConcatDataset", "DataFileError", "DataLoader", "Dataset", "DatasetError", "Examples",
    "IdxError", "IdxFolder", "ImageFiles", "Sampler", "StratifiedSampler", "Subset",
    "TensorDataset", "WeightedSampler", "WordPieceTokenizer", "digits", "idx_folder",
    "image_folder", "image_list", "k_fold", "random_split", "read_csv", "read_idx", "read_image",
    "read_npz", "read_table", "table_examples", "transforms", "write_atomically", "write_idx",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__ = _unknown_names(__name__)
