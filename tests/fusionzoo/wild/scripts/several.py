"""Two models of different classes, each with its own optimizer, and a loss that has weights."""

import torch
from toy import Net, rows, step


class Teacher(Net):
    pass


class Centres(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.centres = torch.nn.Parameter(torch.zeros(3, 3))

    def forward(self, logits, label):
        return (logits - self.centres[label]).pow(2).mean()


teacher, student, centres = Teacher(), Net(), Centres()
first = torch.optim.SGD(teacher.parameters(), lr=0.1)
second = torch.optim.SGD([*student.parameters(), *centres.parameters()], lr=0.1)
step(teacher, first)
for epoch in range(2):
    text, audio, visual, label = rows()
    logits = student(text, audio, visual)
    second.zero_grad()
    (torch.nn.functional.cross_entropy(logits, label) + centres(logits, label)).backward()
    second.step()
