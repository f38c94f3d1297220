"""The two scripts of the original guide, as a user runs them, against an emulated MaxCompute."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowpatch.store.sample_store import open_store
from maxcompute_city import KEYS, KINDS, City, Service

ROOT = Path(__file__).resolve().parents[2]


class Guide:
    """Runs the scripts in a folder of their own."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service, self.folder = service, folder
        self.raw, self.meta = City().load(service)
        self.samples = service.name("tb_samples")
        self.environment = {**os.environ, **KEYS, "FLOWPATCH_CACHE": str(folder / "cache")}

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        place = [str(ROOT / script)] if script.endswith(".py") else ["-m", script]
        return subprocess.run(
            [sys.executable, *place, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )

    def preprocess(self, *more: str) -> subprocess.CompletedProcess[str]:
        return self.run(
            "preprocess_to_samples.py",
            *("--odps_project", "demo", "--odps_endpoint", self.service.endpoint),
            *("--odps_table", self.raw.table, "--odps_meta_table", self.meta.table),
            *("--output_table", self.samples.table, "--adcode", "110000"),
            *("--start_date", "20250919", "--end_date", "20250921"),
            *("--input_len", "6", "--output_len", "6", "--batch_size", "10000"),
            *("--train_ratio", "0.6", "--val_ratio", "0.2", "--test_ratio", "0.2"),
            *("--step_minutes", "30"),
            *more,
        )

    def train(self, *more: str) -> subprocess.CompletedProcess[str]:
        return self.run(
            "train_from_samples.py",
            *("--sample_table", self.samples.table),
            *("--metadata_file", f"metadata_{self.samples.table}.json"),
            *("--batch_size", "32", "--max_epoch", "1", "--learning_rate", "0.001"),
            *("--input-dims", "8", "--tod-dims", "4", "--dow-dims", "4", "--node-dims", "4"),
            *("--layers", "1"),
            *(() if "--factors" in more else ("--factors", "2")),
            *more,
        )

    def losses(self, run: str) -> list[dict[str, float]]:
        """The rows of a run's metrics, without its times."""
        rows = (self.folder / run / "metrics.jsonl").read_text().splitlines()
        return [
            {key: value for key, value in json.loads(row).items() if "second" not in key}
            for row in rows
        ]


@pytest.fixture(scope="module")
def guide(running_service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guide]:
    running_service.no_faults()
    return Guide(running_service, tmp_path_factory.mktemp("guide"))


@pytest.fixture(scope="module")
def preprocessed(guide: Guide) -> subprocess.CompletedProcess[str]:
    return guide.preprocess()


@pytest.fixture(scope="module")
def trained(
    guide: Guide, preprocessed: subprocess.CompletedProcess[str]
) -> subprocess.CompletedProcess[str]:
    return guide.train("--odps_project", "demo", "--cuda", "0", "--run", "run1")


def test_the_first_script_makes_store_table_and_metadata(
    guide: Guide, preprocessed: subprocess.CompletedProcess[str]
) -> None:
    assert preprocessed.returncode == 0, preprocessed.stderr
    metadata = guide.folder / f"metadata_{guide.samples.table}.json"
    assert preprocessed.stdout.split() == [metadata.name]
    content = json.loads(metadata.read_text())
    assert content["table"] == guide.samples.address
    assert content["time_zone"] == "Asia/Shanghai"
    assert len(guide.service.rows(guide.samples, ["timestamp"])) == content["rows"]
    assert open_store(guide.folder / f"{guide.samples.table}.store").axis.days == 3


def test_the_second_script_trains(guide: Guide, trained: subprocess.CompletedProcess[str]) -> None:
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.split() == ["run1"]
    assert "equal to what was published, value for value" in trained.stderr
    assert "training on the CPU" in trained.stderr
    assert (guide.folder / "run1" / "metrics.jsonl").exists()


def test_a_second_training_reads_nothing_and_needs_neither_project_nor_endpoint(
    guide: Guide, trained: subprocess.CompletedProcess[str]
) -> None:
    guide.service.forget_requests()
    again = guide.train("--run", "run2")
    assert again.returncode == 0, again.stderr
    assert not guide.service.requests("rowrange")
    assert guide.losses("run1") == guide.losses("run2")


def test_running_the_first_script_again_is_refused_before_any_work(
    guide: Guide, preprocessed: subprocess.CompletedProcess[str]
) -> None:
    guide.service.forget_requests()
    again = guide.preprocess()
    assert again.returncode == 1
    assert "--if-exists" in again.stderr
    assert not guide.service.requests("rowrange")


def test_replacing_keeps_a_store_that_is_up_to_date(
    guide: Guide, preprocessed: subprocess.CompletedProcess[str]
) -> None:
    again = guide.preprocess("--if_exists", "replace", "--sample_stride", "3")
    assert again.returncode == 0, again.stderr
    assert "kept as it is" in again.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--factors", "3", "--layout", "paper"], "does not divide"),
        (["--factors", "100"], "Set --factors"),
    ],
)
def test_factors_that_do_not_fit_name_those_that_do(
    guide: Guide, trained: subprocess.CompletedProcess[str], more: list[str], said: str
) -> None:
    bad = guide.train(*more, "--run", "run3")
    assert bad.returncode != 0
    assert said in bad.stderr


def test_a_missing_sample_table_says_which_command_makes_it(guide: Guide) -> None:
    metadata = json.loads((guide.folder / f"metadata_{guide.samples.table}.json").read_text())
    (guide.folder / "metadata_absent.json").write_text(json.dumps(metadata))
    bad = guide.run("train_from_samples.py", "--sample_table", "absent")
    assert bad.returncode == 1
    assert (
        f"python preprocess_to_samples.py --odps_project demo --odps_table {guide.raw.table} "
        f"--odps_meta_table {guide.meta.table} --output_table absent --adcode 110000 "
        "--start_date 2025-09-19 --end_date 2025-09-21"
    ) in bad.stderr


def test_the_same_by_the_commands_of_flowpatch(
    guide: Guide, preprocessed: subprocess.CompletedProcess[str]
) -> None:
    table = guide.service.name("by_flowpatch").address
    store = f"{guide.samples.table}.store"
    reached = ("--odps-endpoint", guide.service.endpoint)
    (guide.folder / "city.toml").write_text("[samples.publish]\nsample_stride = 4\n")
    made = guide.run(
        "flowpatch", "samples", "publish", store, table, *reached, "--config", "city.toml"
    )
    assert made.returncode == 0, made.stderr
    assert json.loads((guide.folder / made.stdout.strip()).read_text())["sample_stride"] == 4
    fetched = guide.run("flowpatch", "samples", "fetch", table, "--store", "fetched.store")
    assert fetched.returncode == 0, fetched.stderr
    hashes = [
        open_store(guide.folder / name).manifest.content_hash for name in ("fetched.store", store)
    ]
    assert hashes[0] == hashes[1]
    small = ("--layers", "1", "--max-epoch", "1", "--node-dims", "4", "--input-dims", "8")
    trained = guide.run("flowpatch", "train", table, "--run", "by-flowpatch", *small)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.split() == ["by-flowpatch"]


def test_doctor_goes_all_the_way(
    guide: Guide, preprocessed: subprocess.CompletedProcess[str]
) -> None:
    endpoint = ("--odps-endpoint", guide.service.endpoint)
    found = guide.run("flowpatch", "doctor", guide.samples.address, *endpoint)
    assert found.returncode == 0, found.stdout + found.stderr
    for step in (
        "keys",
        "endpoint",
        "project",
        "queries",
        "tables",
        "table",
        "samples",
        "test read",
    ):
        assert f"ok      {step}" in found.stdout
    assert not any(value in found.stdout + found.stderr for value in KEYS.values())


@pytest.mark.parametrize(
    ("change", "step", "said"),
    [
        ({"ALIBABA_CLOUD_ACCESS_KEY_SECRET": "wrong-secret"}, "project", "Check ALIBABA_CLOUD"),
        ({"ALIBABA_CLOUD_ACCESS_KEY_ID": ""}, "keys", "Export the access key"),
    ],
)
def test_doctor_says_what_is_wrong_with_the_keys(
    guide: Guide, change: dict[str, str], step: str, said: str
) -> None:
    guide.environment = {**os.environ, **KEYS, **change}
    found = guide.run(
        "flowpatch", "doctor", "--odps_endpoint", guide.service.endpoint, "--odps_project", "demo"
    )
    guide.environment = {**os.environ, **KEYS, "FLOWPATCH_CACHE": str(guide.folder / "cache")}
    assert found.returncode == 1
    assert f"failed  {step}" in found.stdout
    assert said in found.stdout
    assert "wrong-secret" not in found.stdout + found.stderr


@pytest.mark.parametrize(
    ("arguments", "step"),
    [
        (["--odps_project", "no_such_project"], "project"),
        (["odps://demo/no_such_table"], "table"),
    ],
)
def test_doctor_names_what_is_not_there(guide: Guide, arguments: list[str], step: str) -> None:
    endpoint = ("--odps-endpoint", guide.service.endpoint)
    found = guide.run("flowpatch", "doctor", *arguments, *endpoint)
    assert found.returncode == 1
    assert f"failed  {step}" in found.stdout


def test_doctor_says_when_nothing_answers(guide: Guide) -> None:
    found = guide.run(
        "flowpatch", "doctor", "--odps-endpoint", "http://127.0.0.1:9/api", "--odps-project", "demo"
    )
    assert found.returncode == 1
    assert "failed  endpoint" in found.stdout


def test_no_key_is_in_anything_that_was_left_behind(
    guide: Guide, trained: subprocess.CompletedProcess[str]
) -> None:
    files = [path for path in guide.folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        content = path.read_bytes()
        for value in KEYS.values():
            assert value.encode() not in content, path
    for value in KEYS.values():
        assert value not in trained.stdout + trained.stderr


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_the_scripts_in_a_storm_end_with_the_same_result(
    seed: int,
    guide: Guide,
    trained: subprocess.CompletedProcess[str],
    running_service: Service,
    tmp_path: Path,
) -> None:
    """Both scripts with workers, at least one request in ten failing, and the training after."""
    other = Guide(running_service, tmp_path)
    running_service.forget_requests()
    running_service.faults({"kinds": sorted(KINDS), "seed": seed, "rate": 0.2, "delay_s": 0.1})
    try:
        ways = ["--pushdown", ["tunnel", "sql"][seed % 2], *(["--partitioned"] * (seed % 3 == 0))]
        made = other.preprocess(*ways)
        assert made.returncode == 0, made.stderr
        run = other.train("--run", "run1")
        assert run.returncode == 0, run.stderr
    finally:
        running_service.no_faults()
    requests = running_service.requests()
    assert sum(entry["fault"] is not None for entry in requests) >= len(requests) / 10
    hashes = [
        open_store(each.folder / f"{each.samples.table}.store").manifest.content_hash
        for each in (guide, other)
    ]
    assert hashes[0] == hashes[1]
    assert other.losses("run1") == guide.losses("run1")
    identities = [row[0] for row in running_service.rows(other.samples, ["sample_id"])]
    metadata = json.loads((tmp_path / f"metadata_{other.samples.table}.json").read_text())
    assert len(identities) == len(set(identities)) == metadata["rows"]
