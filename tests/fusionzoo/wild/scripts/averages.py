"""Averages of weights that are set up before the first call: of torch, and as people write them."""

import copy
import sys

import torch
from toy import Net, rows, step
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Whole(torch.nn.Module):
    """Has parameters behind those of the part in which the streams meet."""

    def __init__(self):
        super().__init__()
        self.net, self.last = Net(), torch.nn.Linear(3, 3)

    def forward(self, text, audio, visual):
        return self.last(self.net(text, audio, visual))


kind = sys.argv[1]
torch.manual_seed(0)
model = Whole()
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
average = None
if kind == "swa":
    average = AveragedModel(model)
elif kind == "ema":
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
elif kind in ("deepcopy", "frozen"):
    average = copy.deepcopy(model).requires_grad_(kind == "deepcopy")
elif kind == "dict":
    average = {n: p.detach().clone() for n, p in model.named_parameters()}
elif kind == "list":
    average = [p.detach().clone() for p in model.parameters()]
elif kind == "other":
    average = AveragedModel(Whole())

history = []
for epoch in range(4):
    step(model, optimizer, rows(seed=epoch))
    history.append({n: p.detach().clone() for n, p in model.named_parameters()})
    if kind in ("swa", "ema", "other"):
        average.update_parameters(model)
    elif kind in ("deepcopy", "frozen"):
        with torch.no_grad():
            for old, new in zip(average.parameters(), model.parameters(), strict=True):
                old.copy_(new if epoch == 0 else 0.5 * old + 0.5 * new)
    elif kind == "dict":
        average = {n: 0.5 * average[n] + 0.5 * p.detach() for n, p in model.named_parameters() if n in average}
