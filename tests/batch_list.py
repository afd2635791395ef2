"""Datasets of given batches."""

import keras


class BatchList(keras.utils.PyDataset):
    """A dataset of the batches in a list: arrays, or tuples `(x,)` or `(x, y)` of arrays."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, i):
        return self.batches[i]
