"""Writes the store and the run of today's formats: python tests/formats/make.py FOLDER

Run it once, when a format number goes up and before it is released, and keep what it writes as it
is: it stands for all stores and runs of that format that are out there. FOLDER is neutral, such as
/srv/city, for its name is in what is written. Format 1 was written by the flowpatch of its time.

    store-N   a build of the first five days, and an update by the sixth
    run-N     one epoch on the store of format N
"""

import os
import shutil
import sys
from datetime import date
from pathlib import Path

from flowpatch.model.settings import ModelSettings
from flowpatch.preprocessing.build import preprocess
from flowpatch.preprocessing.settings import PreprocessSettings, UpdateSettings
from flowpatch.preprocessing.update import update
from flowpatch.store.manifest import FORMAT
from flowpatch.training.runs import train
from flowpatch.training.settings import TrainSettings

HERE = Path(__file__).resolve().parent
LAST_DAY = date(2025, 3, 8)
MODEL = ModelSettings(layers=1, input_dims=2, node_dims=2, tod_dims=2, dow_dims=2)
TRAINING = TrainSettings(max_epoch=1, device="cpu", precision="no")


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    store, run = folder / f"store-{FORMAT}", folder / f"run-{FORMAT}"
    shutil.copy(HERE / "nodes.csv", folder)
    lines = (HERE / "records.csv").read_text().splitlines(keepends=True)
    early = [line for line in lines if str(LAST_DAY) not in line]
    (folder / "records.csv").write_text("".join(early))
    settings = PreprocessSettings(
        records="records.csv", nodes="nodes.csv", node_columns="sensor_id", store=store.name,
        step_minutes=60, input_len=4, output_len=2,
    )  # fmt: skip
    preprocess(settings)
    (folder / "records.csv").write_text("".join(lines))
    train(update(store.name, UpdateSettings()), run.name, MODEL, TRAINING)
    shutil.rmtree(run / "tensorboard")
    for made in (store, run):
        shutil.copytree(made, HERE / made.name)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
