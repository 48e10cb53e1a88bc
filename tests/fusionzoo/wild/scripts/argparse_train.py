"""A training script as people write it: argparse, a model of its own beside it, Adam, a printed score."""

import argparse

import torch
import torch.nn as nn
import torch.optim as optim

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--lr", type=float, default=0.01)
parser.add_argument("--debug", action="store_true")


class Net(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.text_fc = nn.Linear(12, 16)
        self.audio_fc = nn.Linear(8, 16)
        self.out = nn.Linear(32, classes)

    def forward(self, text, audio):
        h = torch.cat([self.text_fc(text).relu(), self.audio_fc(audio).relu()], dim=-1)
        return self.out(h)


def batches():
    g = torch.Generator().manual_seed(1)
    for _ in range(3):
        text, audio = torch.randn(5, 7, 12, generator=g), torch.randn(5, 7, 8, generator=g)
        yield text, audio, (text[..., 0] + audio[..., 0] > 0).long()


if __name__ == "__main__":
    args = parser.parse_args()
    torch.manual_seed(0)
    model = Net()
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    losses = []
    for epoch in range(args.epochs):
        for text, audio, label in batches():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(text, audio).flatten(0, 1), label.flatten())
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch} loss {loss.item():.6f} debug {args.debug}")
