"""Workers that read a data set of the script's own module, a rebuilt optimizer, and a pickled class of __main__."""

import pickle
import sys

import torch
from toy import Net, rows
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    def __init__(self):
        self.rows = rows()

    def __len__(self):
        return len(self.rows[0])

    def __getitem__(self, i):
        return tuple(x[i] for x in self.rows)


if __name__ == "__main__":
    assert isinstance(pickle.loads(pickle.dumps(Rows())), Rows)
    loader = DataLoader(Rows(), batch_size=4, num_workers=2)
    model = Net()
    for part in (["fc"], ["fc", "out"]):
        optimizer = torch.optim.SGD([p for n, p in model.named_parameters() if any(x in n for x in part)], lr=0.1)
        for text, audio, visual, label in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(text, audio, visual), label).backward()
            optimizer.step()
    held = {id(p) for g in optimizer.param_groups for p in g["params"]}
    print("all trained", all(id(p) in held for n, p in model.named_parameters() if "patch" in n))
    sys.exit(3)
