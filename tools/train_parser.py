"""Train the human parser on annotated photos.

    PYTHONPATH=tools python tools/train_parser.py --photos ../shared/data/ccp --work first --out first.safetensors
    PYTHONPATH=tools python tools/train_parser.py --photos ../shared/data/ccp --work second --refine first.safetensors
    PYTHONPATH=tools python tools/train_parser.py --photos ../shared/data/ccp --work third --out third.safetensors \
        --further priors/parser/parser.safetensors --fits fits

The photos are those of Clothing Co-Parsing (Yang, Luo and Lin, CVPR 2014). Progress is kept in the folder of --work:
the same command goes on where it stopped. At the end the averaged weights are written to --out in half precision.
The third command goes a little further from weights that are done; with --fits, on photos without annotation too
(`parser_training/fitted.py`), as many steps as without.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import lightning
import torch
from lightning.pytorch.callbacks import RichProgressBar
from parser_training.fitted import load_fitted_photos
from parser_training.learning import FURTHER, REFINING, ParserTraining, Settings
from parser_training.photos import load_photos
from safetensors.torch import save_file

from dsr_fit.io.files import replacing
from dsr_fit.observe.network_parser import load_network
from dsr_fit.training.checkpointing import checkpoint_callbacks, csv_log, last_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of checkpoints, log and the detector's findings"
    )
    parser.add_argument("--out", type=Path, help="default: priors/parser/parser.safetensors")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--refine", type=Path, help="weights (.safetensors) of a first run to refine in a second one")
    start.add_argument("--further", type=Path, help="weights (.safetensors) to go a little further from")
    parser.add_argument("--fits", type=Path, help="folder of `dsr-fit batch` whose photos are learnt from as well")
    parser.add_argument("--epochs", type=int, help="for a trial; the default is what the shipped weights had")
    parser.add_argument("--detections", type=Path, help="folder of the detector's findings (default: in --work)")
    arguments = parser.parse_args()
    if arguments.further and arguments.out is None:
        parser.error("--further goes on from weights that are done; name another file with --out")
    weights: Path | None = arguments.further or arguments.refine
    settings = FURTHER if arguments.further else REFINING if arguments.refine else Settings()
    settings = replace(settings, epochs=arguments.epochs or settings.epochs)
    lightning.seed_everything(settings.seed)
    cache = arguments.detections or arguments.work / "detections"
    train, tune = (load_photos(arguments.photos, split, cache) for split in ("train", "tune"))
    if arguments.fits:
        epochs, annotated = settings.epochs, len(train)
        train = [*train, *load_fitted_photos(arguments.photos, arguments.fits, cache)]
        settings = replace(settings, epochs=max(1, round(epochs * annotated / len(train))))
        print(f"{len(train) - annotated} photos without annotation; {settings.epochs} epochs", flush=True)
    module = ParserTraining(train, tune, settings)
    if weights is not None:
        module.network.load_state_dict(load_network(weights).state_dict())
    trainer = lightning.Trainer(
        max_epochs=settings.epochs,
        precision="bf16-mixed",
        accelerator="cpu",
        gradient_clip_val=1.0,
        reload_dataloaders_every_n_epochs=1,
        check_val_every_n_epoch=min(5, -(-settings.epochs // 4)),
        num_sanity_val_steps=0,
        logger=csv_log(arguments.work),
        callbacks=[RichProgressBar(), *checkpoint_callbacks(arguments.work, settings.decay)],
        log_every_n_steps=20,
    )
    trainer.fit(module, ckpt_path=last_checkpoint(arguments.work))
    learnt = {name: value.detach().half().contiguous() for name, value in module.network.state_dict().items()}
    learnt = {name: value for name, value in learnt.items() if not name.endswith("num_batches_tracked")}
    out: Path = arguments.out or Path("priors/parser/parser.safetensors")
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        save_file(learnt, temporary)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
