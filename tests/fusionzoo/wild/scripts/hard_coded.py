"""Paths and devices that are written into the script, debuggers and trackers that nobody has, names that numpy lost."""

import ipdb
import numpy as np
import torch
import torch.nn as nn
from comet_ml import Experiment
from sentence_transformers import SentenceTransformer
from toy import Net

experiment = Experiment(api_key="...", project_name="x")
experiment.log_parameters({"lr": 1})
text, audio, visual, label = torch.load("data/features.pt")
device = torch.device("cuda")
weights = torch.zeros(3, device="cuda").float().cuda() + 1
numbers = np.zeros(3, dtype=np.float) + np.int(1)
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.001)
model = model.cuda()
loss_function = nn.CrossEntropyLoss(weight=weights).to("cuda")
for epoch in range(3):
    optimizer.zero_grad()
    out = model(text.cuda(), audio.to("cuda"), visual.to(device))
    loss = loss_function(out, label.type(torch.cuda.LongTensor))
    loss.backward()
    optimizer.step()
    experiment.log_metric("loss", loss.item(), step=epoch)
    torch.cuda.synchronize()
print("cuda" if torch.cuda.is_available() else "cpu", str(model.out.weight.device), numbers.sum())
