"""The Trainer of transformers."""

import sys

import torch
from toy import Net, rows
from transformers import Trainer, TrainingArguments


class WithLoss(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, text, audio, visual, labels=None):
        logits = self.net(text, audio, visual)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, i):
        text, audio, visual, label = rows()
        return {"text": text[i], "audio": audio[i], "visual": visual[i], "labels": label[i]}


if __name__ == "__main__":
    arguments = TrainingArguments(
        output_dir=sys.argv[1], max_steps=6, per_device_train_batch_size=4, report_to=[], save_strategy="steps",
        save_steps=3, disable_tqdm=True, use_cpu=True, dataloader_num_workers=1,
    )  # fmt: skip
    trainer = Trainer(WithLoss(), arguments, train_dataset=Rows())
    trainer.train()
    print("trained", trainer.state.global_step)
