"""Scripts that end in some way before a model is trained, by their first argument."""

import os
import sys

import torch
from toy import Net, rows, step

how = sys.argv[1]
if how == "exit":
    sys.exit(5)
if how == "words":
    sys.exit("no data")
if how == "raise":
    raise ValueError("the script's own")
if how == "missing":
    import a_package_that_nobody_has
model = Net()
if how == "no-optimizer":
    model(*rows()[:3])
    sys.exit()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
if how == "eval":
    model.eval()
    step(model, optimizer)
if how == "once":
    text, audio, visual, label = rows()
    torch.nn.functional.cross_entropy(model.forward(text, audio, visual), label).backward()
    optimizer.step()
if how == "trained":
    step(model, optimizer)
    print(sys.argv, sys.path[0], __name__, os.path.basename(__file__), os.getcwd())
