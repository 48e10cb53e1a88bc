"""A model for every fold; the best of each goes to a file and into a new model, and a whole model to another file."""

import torch
from toy import Net, rows, step

scores = []
for fold in range(3):
    torch.manual_seed(fold)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for epoch in range(3):
        step(model, optimizer, rows(seed=fold))
    torch.save(model.state_dict(), "fold.pt")
    torch.save(model, "whole.pt")
    text, audio, visual, label = rows(seed=9)
    tester = Net()
    tester.load_state_dict(torch.load("fold.pt"))
    whole = torch.load("whole.pt")
    with torch.no_grad():
        outs = [m.eval()(text, audio, visual) for m in (model, tester, whole)]
    same = [bool(torch.equal(outs[0], o)) for o in outs[1:]]
    scores.append(float((outs[0].argmax(1) == label).float().mean()))
