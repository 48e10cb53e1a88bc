"""Schedulers that were built before training starts, and a line that writes the rate itself."""

import sys

import torch
from toy import Net, step
from torch.optim import lr_scheduler as S

kind = sys.argv[1]
torch.manual_seed(0)
model = Net()
optimizer = torch.optim.AdamW(
    [{"params": model.out.parameters(), "lr": 0.02}, {"params": [p for n, p in model.named_parameters() if "fc" in n]}],
    lr=0.01,
)
plans = {
    "lambda": lambda: S.LambdaLR(optimizer, [lambda e: 0.5**e, lambda e: 0.1**e]),
    "one-cycle": lambda: S.OneCycleLR(optimizer, max_lr=[0.1, 0.2], total_steps=9),
    "plateau": lambda: S.ReduceLROnPlateau(optimizer, factor=0.1, patience=0, min_lr=[1e-5, 1e-4], verbose=True),
    "cyclic": lambda: S.CyclicLR(optimizer, 0.001, 0.1, step_size_up=3, cycle_momentum=False),
    "sequential": lambda: S.SequentialLR(
        optimizer, [S.ConstantLR(optimizer, 0.1), S.ExponentialLR(optimizer, 0.9)], milestones=[2]
    ),
    "cosine": lambda: S.CosineAnnealingLR(optimizer, T_max=5),
    "hand": lambda: None,
}
scheduler = plans[kind]()
scaler = torch.cuda.amp.GradScaler(enabled=False) if kind == "hand" else torch.amp.GradScaler("cpu", init_scale=4.0)
for epoch in range(4):
    text, audio, visual, label = __import__("toy").rows()
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(text, audio, visual), label)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    if kind == "hand":
        for group in optimizer.param_groups[:2]:
            group["lr"] *= 0.5
    elif kind == "plateau":
        scheduler.step(1.0)
    else:
        scheduler.step()
step(model, optimizer)
rates = [g["lr"] for g in optimizer.param_groups]
