# SPDX-License-Identifier: Apache-2.0
"""Lightning with PionAdamW and a schedule; stopped half-way and resumed from its checkpoint.

pip install '.[torch]' lightning && python examples/lightning_module.py"""

import tempfile

import lightning
import torch
from torch import nn

import pion


class Regression(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 1)
        )

    def training_step(self, batch, _):
        x, y = batch
        loss = nn.functional.mse_loss(self.net(x), y)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        optimizer = pion.PionAdamW(pion.route(self), lr=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule}}


def fit(epochs: int, folder: str, resume: str | None = None) -> lightning.Trainer:
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=folder, logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Regression(), loader, ckpt_path=resume)
    print(f"epoch {trainer.current_epoch}  loss {trainer.callback_metrics['loss']:.4f}")
    return trainer


torch.manual_seed(0)
x = torch.randn(512, 16)
data = torch.utils.data.TensorDataset(x, (x[:, :4] ** 2).sum(1, keepdim=True))
loader = torch.utils.data.DataLoader(data, batch_size=64)
with tempfile.TemporaryDirectory() as folder:
    half = fit(4, folder)
    fit(8, folder, resume=half.checkpoint_callback.best_model_path)
