"""The script joins the modalities itself, steps first; the model reads one stream."""

import torch
from torch import nn

torch.manual_seed(0)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(9, 6, bidirectional=True)
        self.out = nn.Linear(12, 2)

    def forward(self, U, umask):
        return self.out(self.rnn(U)[0])


model = Recurrent()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for epoch in range(2):
    text, audio = torch.randn(7, 3, 5), torch.randn(7, 3, 4)
    U = torch.cat([text, audio], dim=-1)
    optimizer.zero_grad()
    model(U, torch.ones(3, 7)).sum().backward()
    optimizer.step()
