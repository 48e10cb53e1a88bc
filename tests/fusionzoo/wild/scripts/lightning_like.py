"""A module that holds model, loss and optimizers, trained by a loop that calls its training_step."""

import torch
from toy import Net, rows


class System(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()
        self.loss = torch.nn.CrossEntropyLoss()

    def forward(self, text, audio, visual):
        return self.net(text, audio, visual)

    def training_step(self, batch, index):
        *streams, label = batch
        return self.loss(self(*streams), label)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


class Trainer:
    def fit(self, system):
        (optimizer,), (scheduler,) = system.configure_optimizers()
        system.train()
        for index in range(3):
            loss = system.training_step(rows(), index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()


system = System()
Trainer().fit(system)
