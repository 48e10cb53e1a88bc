"""Seeds are written into the script."""

import random

import numpy as np
import torch
from toy import Net, step

random.seed(27350)
np.random.seed(27350)
torch.manual_seed(27350)
numbers = [random.random(), np.random.rand(), torch.rand(1).item()]
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loss = [step(model, optimizer) for _ in range(2)][-1]
