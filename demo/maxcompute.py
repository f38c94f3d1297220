"""`make demo-maxcompute`: the two scripts of the original guide, on a MaxCompute of one's own.

Starts the emulator on the loopback address, loads a simulated city into it with MaxCompute's own
client, and runs the two commands as they are written in the guide. Nothing leaves this machine.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset
from odps import ODPS

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "demo" / "work" / "maxcompute"
PROJECT, ADCODE = "demo", "110000"
FIRST_DAY, DAYS = "20250919", 7
RAW, META = "tb_inter_spatial_method_pretrain_data", "intersection_meta_aligned"
SAMPLES = "tb_patchstg_beijing_samples"

PREPROCESS = f"""preprocess_to_samples.py --odps_project {PROJECT} --odps_endpoint {{endpoint}}
    --odps_table {RAW} --odps_meta_table {META}
    --output_table {SAMPLES} --adcode {ADCODE} --start_date 20250919 --end_date 20250925
    --input_len 12 --output_len 12 --train_ratio 0.6 --val_ratio 0.2 --test_ratio 0.2
    --batch_size 10000"""
TRAIN = f"""train_from_samples.py --odps_project {PROJECT} --odps_endpoint {{endpoint}}
    --sample_table {SAMPLES} --metadata_file metadata_{SAMPLES}.json
    --batch_size 32 --max_epoch 50 --learning_rate 0.001 --cuda 0"""


def main() -> None:
    """Runs the demo and prints how long it took."""
    started = time.monotonic()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    # Keys of the emulator alone: those of a real account stay out of this.
    os.environ["ALIBABA_CLOUD_ACCESS_KEY_ID"] = "demo-access-key-id"
    os.environ["ALIBABA_CLOUD_ACCESS_KEY_SECRET"] = "demo-access-key-secret"  # noqa: S105
    os.environ.pop("ALIBABA_CLOUD_SECURITY_TOKEN", None)
    os.environ["FLOWPATCH_CACHE"] = str(WORK / "cache")
    with emulator() as endpoint:
        load_city(endpoint)
        run(PREPROCESS.format(endpoint=endpoint))
        run(TRAIN.format(endpoint=endpoint))
        print("\nA second training reads no samples, and project and endpoint are known by now:")
        run(f"train_from_samples.py --sample_table {SAMPLES} --max_epoch 1 --layers 5 --factors 10")
        run(f"-m flowpatch doctor odps://{PROJECT}/{SAMPLES} --odps-endpoint {endpoint}")
    print(f"\nThe whole demo took {time.monotonic() - started:.0f} s.")


@contextmanager
def emulator() -> Iterator[str]:
    """The endpoint of an emulator that runs as long as the block."""
    command = [sys.executable, "-m", "maxcompute_emulator", "--port", "0", "--project", PROJECT]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stdout is not None  # noqa: S101
    ready = process.stdout.readline().strip()
    print(ready)
    try:
        yield ready.split(" at ")[1].split(" ")[0]
    finally:
        process.terminate()
        process.wait()


def load_city(endpoint: str) -> None:
    """Simulates a city and writes its records and nodes as the two tables of the guide."""
    city = WORK / "city"
    run(
        f"-m flowpatch simulate --out {city.relative_to(WORK)} --nodes 60 --days {DAYS} "
        f"--step-minutes 5 --start-date {FIRST_DAY} --format csv"
    )
    client = ODPS(
        os.environ["ALIBABA_CLOUD_ACCESS_KEY_ID"],
        os.environ["ALIBABA_CLOUD_ACCESS_KEY_SECRET"],
        project=PROJECT,
        endpoint=endpoint,
    )
    meta = pyarrow.csv.read_csv(city / "nodes.csv")
    keys = {
        name: pc.cast(meta[name], pa.string()) for name in ("nds_id", "next_nds_id", "inter_id")
    }
    nodes = pa.table({**keys, "lat": meta["lat"], "lng": meta["lng"]})
    columns = "nds_id string, next_nds_id string, inter_id string, lat double, lng double"
    with client.create_table(META, columns).open_writer(arrow=True) as writer:
        writer.write(nodes)
    columns = "nds_id string, next_nds_id string, passts_time string, flow_label bigint"
    table = client.create_table(RAW, (f"{columns}, adcode string", "ds string"))
    records = pyarrow.dataset.dataset(city / "records", format="csv").to_table()
    written = 0
    days = pc.strftime(records["passts_time"], "%Y%m%d")
    for day in pc.unique(days).sort().to_pylist():
        rows = records.filter(pc.equal(days, day))
        raw = {
            "nds_id": pc.cast(rows["nds_id"], pa.string()),
            "next_nds_id": pc.cast(rows["next_nds_id"], pa.string()),
            "passts_time": pc.strftime(rows["passts_time"], "%Y-%m-%d %H:%M:%S"),
            "flow_label": pc.cast(rows["flow_label"], pa.int64()),
            "adcode": pa.array([ADCODE] * len(rows)),
        }
        with table.open_writer(f"ds={day}", create_partition=True, arrow=True) as writer:
            writer.write(pa.table(raw))
        written += len(rows)
    print(f"{written:,} records in {RAW}, {len(nodes):,} nodes in {META}")


def run(command: str) -> None:
    """Shows a command as a user would type it, and runs it."""
    words = command.split()
    script = words[0] if words[0].startswith("-") else str(ROOT / words[0])
    shown = command.removeprefix("-m ") if words[0] == "-m" else f"python {command}"
    print(f"\n$ {shown}", flush=True)
    subprocess.run([sys.executable, script, *words[1:]], cwd=WORK, check=True)  # noqa: S603


if __name__ == "__main__":
    main()
