"""Encoders and a head that the script calls one by one: there is no module around the join."""

import torch
from toy import rows


class Encoder(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(width, 6), torch.nn.ReLU(), torch.nn.Linear(6, 6))

    def forward(self, x):
        return self.net(x)


class AudioEncoder(Encoder):
    pass


class Head(Encoder):
    pass


text_encoder, audio_encoder, head = Encoder(10), AudioEncoder(5), Head(12)
parts = torch.nn.ModuleList([text_encoder, audio_encoder, head])
optimizer = torch.optim.SGD(parts.parameters(), lr=0.1)
text, audio, visual, label = rows()
try:
    joined = torch.cat([text_encoder(text), audio_encoder(audio)], dim=-1)
    torch.nn.functional.cross_entropy(head(joined), label).backward()
    optimizer.step()
except Exception as error:
    print("the script goes on after", type(error).__name__)
