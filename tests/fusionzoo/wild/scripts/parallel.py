"""DataParallel, the optimizer after it, early stopping with the best state, an initial state from before training."""

import copy

import torch
from toy import Net, rows, step

torch.manual_seed(0)
model = Net()
initial = copy.deepcopy(model.state_dict())
torch.save(model.state_dict(), "initial.pt")
model = torch.nn.DataParallel(model)
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
best, best_loss = None, float("inf")
for epoch in range(4):
    model.train()
    step(model, optimizer)
    model.eval()
    text, audio, visual, label = rows(seed=4)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(model(text, audio, visual), label).item()
    if loss < best_loss:
        best, best_loss = copy.deepcopy(model.state_dict()), loss
twin = copy.deepcopy(model)
model.load_state_dict(best)
with torch.no_grad():
    again = torch.nn.functional.cross_entropy(model(text, audio, visual), label).item()
torch.save({"state": best}, "best.pt")
model.module.load_state_dict(initial)
model.module.load_state_dict(torch.load("initial.pt"))
